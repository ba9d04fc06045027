package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// proxy makes a local server a distant one: what goes to it is late by the round
// trip's time, and each connection has a speed limit in each direction.
type proxy struct {
	name     string
	listener net.Listener
	target   string
	latency  time.Duration
	rate     int // bytes a second
	stop     context.CancelFunc
	work     sync.WaitGroup
}

func startProxy(ctx context.Context, target string, latency time.Duration, rate int) (*proxy, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	p := &proxy{
		name: fmt.Sprintf("+%v, %d MB/s", latency, rate/1_000_000), listener: l, target: target, latency: latency, rate: rate, stop: stop,
	}
	p.work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.serve(ctx, conn) })
		}
	})
	return p, nil
}

func (p *proxy) endpoint() string { return "http://" + p.listener.Addr().String() }

func (p *proxy) close() {
	p.stop()
	p.listener.Close()
	p.work.Wait()
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
