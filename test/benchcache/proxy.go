package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// proxy makes a local server a distant one: what goes to it is late by the round
// trip's time, and each connection has a speed limit in each direction.
type proxy struct {
	target  string
	latency time.Duration
	rate    int // bytes a second
}

// serveProxy is a proxy before the address args[0], with the latency args[1] and
// args[2] bytes a second, until stdin ends. It is a process of its own: what it
// buffers would count as the memory of the subjects, whose peak begins at that of
// the process that starts them.
func serveProxy(ctx context.Context, args []string) error {
	latency, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	rate, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String()) //nolint:forbidigo // a subject's answer
	p := &proxy{target: args[0], latency: latency, rate: rate}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(ctx, conn)
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// farWay is a proxy's process.
type farWay struct {
	name     string
	endpoint string
	process  *exec.Cmd
	stdin    io.Closer
}

func startProxy(self, target string, latency time.Duration, rate int) (*farWay, error) {
	cmd := exec.Command(self, "proxy", target, latency.String(), strconv.Itoa(rate)) //nolint:noctx // close ends it
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	endpoint, err := bufio.NewReader(out).ReadString('\n')
	f := &farWay{name: fmt.Sprintf("+%v, %d MB/s", latency, rate/1_000_000), endpoint: strings.TrimSpace(endpoint), process: cmd, stdin: stdin}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	return f, nil
}

func (f *farWay) close() {
	f.stdin.Close()
	_ = f.process.Wait()
}

func (p *proxy) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	time.Sleep(p.latency) // the handshake's round trip
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	ended := context.AfterFunc(ctx, func() { client.Close(); server.Close() })
	defer ended()
	var both sync.WaitGroup
	both.Go(func() {
		p.pass(client, server, p.latency)
		_ = server.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		p.pass(server, client, 0)
		client.Close()
	})
	both.Wait()
}

type piece struct {
	due  time.Time
	data []byte
}

// pass copies with delay and speed limit. What is on its way is bounded, as in
// a network.
func (p *proxy) pass(from io.Reader, to io.Writer, delay time.Duration) {
	const pieceSize = 64 << 10
	way := make(chan piece, 128)
	go func() {
		defer close(way)
		free := time.Now() // when the line is free again
		for {
			b := make([]byte, pieceSize)
			n, err := from.Read(b)
			if n > 0 {
				now := time.Now()
				if free.Before(now) {
					free = now
				}
				free = free.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
				way <- piece{due: free.Add(delay), data: b[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	for m := range way {
		time.Sleep(time.Until(m.due))
		if _, err := to.Write(m.data); err != nil {
			if c, ok := from.(net.Conn); ok && !errors.Is(err, net.ErrClosed) {
				c.Close()
			}
			for range way { // until the reader has noticed
			}
			return
		}
	}
}
