package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNamesNotValues(t *testing.T) {
	got := names([]string{"B=secret", "A=x=y", "EMPTY="})
	if diff := cmp.Diff([]string{"A", "B", "EMPTY"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestEchoAndHTTP(t *testing.T) {
	port := freePort(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, env("PORT", port), []string{"A", "B"}, io.Discard) }()

	conn := dial(t, port)
	defer conn.Close()
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "PING\r\n" || err != nil {
		t.Errorf("echo is %q, %v", line, err)
	}
	answer, err := http.Get("http://127.0.0.1:" + port + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); string(body) != "A\nB\n" || err != nil {
		t.Errorf("HTTP answer is %q, %v", body, err)
	}
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("ended with %d", code)
	}
}

func TestEndsByItself(t *testing.T) {
	var log bytes.Buffer
	code := run(t.Context(), env("PORT", freePort(t), "EXIT_AFTER_MS", "1", "EXIT_CODE", "7"), nil, &log)
	if code != 7 {
		t.Errorf("ended with %d; log: %s", code, log.String())
	}
}

func TestPortThatIsTaken(t *testing.T) {
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)
	var log bytes.Buffer
	if code := run(t.Context(), env("PORT", port), nil, &log); code != 1 {
		t.Errorf("ended with %d; log: %s", code, log.String())
	}
}

// env is a getenv for the given names and values.
func env(pairs ...string) func(string) string {
	values := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return values[name] }
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)
}

// dial waits until the service listens.
func dial(t *testing.T, port string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}
