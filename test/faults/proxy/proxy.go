// Package proxy is a TCP proxy that does to connections what networks do.
package proxy

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Faults are what happens to each connection. Zero values do nothing.
type Faults struct {
	// Life is after how long a connection is cut.
	Life func() time.Duration
	// Delay is added to each direction.
	Delay time.Duration
}

// Proxy listens on Address and passes connections on to a target.
type Proxy struct {
	Address string
	// Cuts and Stalls count what has happened so far.
	Cuts, Stalls atomic.Int64

	target      string
	faults      Faults
	mu          sync.Mutex
	live        map[chan struct{}]bool // what stalls the connections that live
	listener    net.Listener
	connections sync.WaitGroup
	closed      chan struct{}
}

// Start starts a proxy in front of target, host and port.
func Start(ctx context.Context, target string, faults Faults) (*Proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{Address: listener.Addr().String(), target: target, faults: faults, listener: listener, live: map[chan struct{}]bool{}, closed: make(chan struct{})}
	p.connections.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.connections.Go(func() { p.pass(client) })
		}
	})
	return p, nil
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() {
	p.listener.Close()
	close(p.closed)
	p.connections.Wait()
}

// Stall lets every connection that is open pass on no more bytes, without
// closing it.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for stalled := range p.live {
		p.Stalls.Add(1)
		close(stalled)
		delete(p.live, stalled)
	}
}

func (p *Proxy) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target) //nolint:noctx // the proxy's own end cuts it
	if err != nil {
		return
	}
	defer server.Close()
	cut := func() { client.Close(); server.Close() }
	over := make(chan struct{})
	stalled := make(chan struct{})
	if p.faults.Life != nil {
		defer time.AfterFunc(p.faults.Life(), func() { p.Cuts.Add(1); cut() }).Stop()
	}
	p.mu.Lock()
	p.live[stalled] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.live, stalled)
		p.mu.Unlock()
	}()
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, stalled, over); cut() })
	both.Go(func() { p.copy(client, server, stalled, over); cut() })
	go func() {
		select {
		case <-p.closed:
			cut()
		case <-over:
		}
	}()
	both.Wait()
	close(over)
}

// piece is what was read and when it may go on.
type piece struct {
	data []byte
	at   time.Time
}

// copy passes bytes on, late if there is a delay, and none once stalled. A
// stalled connection goes on reading nothing, as a dead peer does.
func (p *Proxy) copy(to, from net.Conn, stalled, over <-chan struct{}) {
	pieces := make(chan piece, 1024)
	var writer sync.WaitGroup
	writer.Go(func() {
		failed := false
		for piece := range pieces {
			if wait := time.Until(piece.at); wait > 0 {
				time.Sleep(wait)
			}
			if !failed {
				_, err := to.Write(piece.data)
				failed = err != nil
			}
		}
	})
	defer writer.Wait()
	defer close(pieces)
	for {
		select {
		case <-stalled:
			select {
			case <-over:
			case <-p.closed:
			}
			return
		default:
		}
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case <-stalled: // swallowed
			default:
				pieces <- piece{buf[:n], time.Now().Add(p.faults.Delay)}
			}
		}
		if err != nil {
			return
		}
	}
}
