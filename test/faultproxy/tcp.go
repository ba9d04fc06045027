package faultproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// TCP is a proxy for one TCP server.
type TCP struct {
	address string
	target  string
	listen  net.Listener
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	refuse   bool
	limit    int64
	conns    map[net.Conn]bool
	accepted int
	held     chan struct{} // closed while bytes may pass
}

// StartTCP starts a proxy at an address, such as 127.0.0.1:0, for the server at
// target, which is host:port.
func StartTCP(ctx context.Context, address, target string) (*TCP, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	open := make(chan struct{})
	close(open)
	p := &TCP{address: listener.Addr().String(), target: target, listen: listener, stop: stop, conns: map[net.Conn]bool{}, held: open}
	p.running.Go(func() { p.accept(ctx) })
	return p, nil
}

// Address is host:port.
func (p *TCP) Address() string { return p.address }

// Refuse makes the proxy reset new connections as soon as they are made.
func (p *TCP) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// Hold stops all bytes in both directions, of old and new connections, until it
// is called with false: a network that swallows everything.
func (p *TCP) Hold(hold bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.held:
		if hold {
			p.held = make(chan struct{})
		}
	default:
		if !hold {
			close(p.held)
		}
	}
}

// ResetAfter resets each new connection when the server has sent so many bytes
// through it; 0 means never.
func (p *TCP) ResetAfter(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = bytes
}

// Cut resets all connections there are and returns how many.
func (p *TCP) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		drop(c)
	}
	return len(p.conns)
}

// Accepted is how many connections have been made.
func (p *TCP) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Close ends the proxy and all its connections.
func (p *TCP) Close() error {
	p.stop()
	err := p.listen.Close()
	p.Cut()
	p.running.Wait()
	return err
}

func drop(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (p *TCP) accept(ctx context.Context) {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		if !p.admit(ctx, client) {
			drop(client)
			continue
		}
		p.running.Go(func() { p.serve(ctx, client) })
	}
}

func (p *TCP) admit(ctx context.Context, client net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted++
	if p.refuse || ctx.Err() != nil {
		return false
	}
	p.conns[client] = true
	return true
}

func (p *TCP) serve(ctx context.Context, client net.Conn) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, client)
		p.mu.Unlock()
		drop(client)
	}()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	limit := p.limit
	p.mu.Unlock()
	var up sync.WaitGroup
	up.Go(func() {
		p.pass(ctx, server, client, 0)
		if tcp, ok := server.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	})
	if p.pass(ctx, client, server, limit) {
		if tcp, ok := client.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	} else {
		drop(client)
		server.Close()
	}
	up.Wait()
}

// pass copies until the source ends, which is true, or something breaks.
func (p *TCP) pass(ctx context.Context, to, from net.Conn, limit int64) bool {
	buffer := make([]byte, 32<<10)
	var seen int64
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return false
		}
		part := buffer[:n]
		if limit > 0 && seen+int64(n) > limit {
			part = part[:limit-seen]
		}
		if _, err := to.Write(part); err != nil {
			return false
		}
		seen += int64(len(part))
		if len(part) < n {
			return false
		}
		if err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}
