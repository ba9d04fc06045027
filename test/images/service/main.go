// Command service stands in for redis, postgres and the like in tests of
// services. Its environment decides what it does:
//
//	PORT           TCP ports to listen on, with commas; 6379 if not set
//	DELAY_MS       how long it takes until it listens
//	EXIT_AFTER_MS  when it ends by itself
//	EXIT_CODE      with which code it then ends
//
// It echoes every line. A line that begins like an HTTP GET is answered with
// the names of its environment variables instead, one on a line.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := run(ctx, os.Getenv, names(os.Environ()), os.Stdout)
	stop()
	os.Exit(code)
}

func names(environ []string) []string {
	var out []string
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func run(ctx context.Context, getenv func(string) string, names []string, log io.Writer) int {
	exitCode := 0
	if after := number(getenv("EXIT_AFTER_MS"), 0); after > 0 {
		exitCode = number(getenv("EXIT_CODE"), 0)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(after)*time.Millisecond)
		defer cancel()
	}
	fmt.Fprintln(log, "service: starting")
	select {
	case <-time.After(time.Duration(number(getenv("DELAY_MS"), 0)) * time.Millisecond):
	case <-ctx.Done():
	}
	ports := getenv("PORT")
	if ports == "" {
		ports = "6379"
	}
	var serving sync.WaitGroup
	for port := range strings.SplitSeq(ports, ",") {
		if ctx.Err() != nil {
			break
		}
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strings.TrimSpace(port))
		if err != nil {
			fmt.Fprintf(log, "service: %v\n", err)
			return 1
		}
		fmt.Fprintf(log, "service: ready to accept connections on port %s\n", port)
		serving.Go(func() { serve(ctx, listener, names) })
	}
	<-ctx.Done()
	serving.Wait()
	fmt.Fprintf(log, "service: ending with code %d\n", exitCode)
	return exitCode
}

// number is the value of a variable, or fallback if it isn't one.
func number(text string, fallback int) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return fallback
	}
	return n
}

// serve accepts until ctx ends. Connections that are open then end with the
// process.
func serve(ctx context.Context, listener net.Listener, names []string) {
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go answer(conn, names)
	}
}

func answer(conn net.Conn, names []string) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if strings.HasPrefix(line, "GET ") {
			body := strings.Join(names, "\n") + "\n"
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
			return
		}
		if _, err := io.WriteString(conn, line); err != nil {
			return
		}
	}
}
