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

// Proxy listens on Address and passes connections on to a target. It can be told
// at any time to cut or stall those that are open, or to hold back all.
type Proxy struct {
	Address string
	// Cuts and Stalls count what has happened so far.
	Cuts, Stalls atomic.Int64

	target      string
	faults      Faults
	listener    net.Listener
	connections sync.WaitGroup
	closed      chan struct{}

	mu      sync.Mutex
	live    map[*connection]bool
	held    chan struct{} // not nil: nothing passes until it is closed
	waiting chan struct{} // closed when something of a new connection is held back
	holds   int           // how often Hold was called
}

// connection is one that is open.
type connection struct {
	client, server net.Conn
	stalled, over  chan struct{}
	opened         int // the value of holds at that time
}

func (c *connection) cut() { c.client.Close(); c.server.Close() }

// Start starts a proxy in front of target, host and port.
func Start(ctx context.Context, target string, faults Faults) (*Proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{Address: listener.Addr().String(), target: target, faults: faults, listener: listener, live: map[*connection]bool{}, closed: make(chan struct{})}
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
	for c := range p.live {
		p.Stalls.Add(1)
		close(c.stalled)
		delete(p.live, c)
	}
}

// CutAll cuts the connections that are open.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.live {
		p.Cuts.Add(1)
		c.cut()
	}
}

// Hold lets nothing pass until Release. The channel is closed once there is
// something that would, on a connection that was opened since: others may still
// say goodbye.
func (p *Proxy) Hold() (waiting <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holds++
	p.held, p.waiting = make(chan struct{}), make(chan struct{})
	return p.waiting
}

// Release ends Hold. It may be called again.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil {
		close(p.held)
		p.held = nil
	}
}

// holding returns nil, or what to wait for before something passes.
func (p *Proxy) holding(c *connection) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held != nil && p.waiting != nil && c.opened == p.holds {
		close(p.waiting)
		p.waiting = nil
	}
	return p.held
}

func (p *Proxy) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target) //nolint:noctx // the proxy's own end cuts it
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	c := &connection{client: client, server: server, stalled: make(chan struct{}), over: make(chan struct{}), opened: p.holds}
	p.live[c] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.live, c)
		p.mu.Unlock()
	}()
	if p.faults.Life != nil {
		defer time.AfterFunc(p.faults.Life(), func() { p.Cuts.Add(1); c.cut() }).Stop()
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(c, server, client); c.cut() })
	both.Go(func() { p.copy(c, client, server); c.cut() })
	go func() {
		select {
		case <-p.closed:
			c.cut()
		case <-c.over:
		}
	}()
	both.Wait()
	close(c.over)
}

// piece is what was read and when it may go on.
type piece struct {
	data []byte
	at   time.Time
}

// copy passes bytes on, late if there is a delay, and none once stalled. A
// stalled connection goes on reading nothing, as a dead peer does.
func (p *Proxy) copy(c *connection, to, from net.Conn) {
	pieces := make(chan piece, 1024)
	var writer sync.WaitGroup
	writer.Go(func() {
		failed := false
		for piece := range pieces {
			if wait := time.Until(piece.at); wait > 0 {
				time.Sleep(wait)
			}
			if held := p.holding(c); held != nil {
				select {
				case <-held:
				case <-p.closed:
				}
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
		case <-c.stalled:
			select {
			case <-c.over:
			case <-p.closed:
			}
			return
		default:
		}
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case <-c.stalled: // swallowed
			default:
				pieces <- piece{buf[:n], time.Now().Add(p.faults.Delay)}
			}
		}
		if err != nil {
			return
		}
	}
}
