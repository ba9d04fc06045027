package faultproxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Fault is what happens to requests. Of several that match, the one that was
// added last counts. Fields can be combined where that makes sense.
type Fault struct {
	// Match picks requests; nil means all.
	Match func(*http.Request) bool
	// Times is how many requests it happens to; 0 means all.
	Times int

	// Delay is how long a request waits before it goes on.
	Delay time.Duration
	// Stall keeps requests waiting until the fault is removed, the client goes
	// away or the proxy is closed.
	Stall bool
	// Reset ends the connection with a TCP reset instead of an answer.
	Reset bool
	// Status answers instead of the server, with Header and Body.
	Status int
	Header http.Header
	Body   string
	// ResetUploadAfter and ResetAnswerAfter, if above 0, end the connection with
	// a TCP reset when so many bytes of the request's or the answer's body have
	// gone through. The client may have seen fewer of them.
	ResetUploadAfter int64
	ResetAnswerAfter int64
	// Strip is a header that requests lose on their way to the server.
	Strip string
	// Rate, if above 0, is how many bytes a second of each body go through.
	Rate int64
}

// HTTP is a proxy for one HTTP server. It keeps the Host header, which is part
// of signatures.
type HTTP struct {
	address string
	server  *http.Server
	closed  chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	faults   []*Active
	requests int
}

// Active is a fault in a proxy.
type Active struct {
	Fault
	proxy   *HTTP
	removed chan struct{}
	hits    int
}

// StartHTTP starts a proxy at an address, such as 127.0.0.1:0, for the server
// at the URL target.
func StartHTTP(ctx context.Context, address, target string) (*HTTP, error) {
	to, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	p := &HTTP{address: listener.Addr().String(), closed: make(chan struct{})}
	silent := log.New(io.Discard, "", 0)
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 100}
	through := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		Transport: transport, FlushInterval: -1, ErrorLog: silent,
		// The server behind is down: so are we.
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, _ error) { reset(r) },
	}
	p.server = &http.Server{
		Handler:           p.handler(through),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          silent,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	p.running.Go(func() {
		_ = p.server.Serve(listener)
		transport.CloseIdleConnections()
	})
	return p, nil
}

// Address is host:port, URL the same with http://.
func (p *HTTP) Address() string { return p.address }

// URL is where the proxy is.
func (p *HTTP) URL() string { return "http://" + p.address }

// Requests is how many requests have come, whatever became of them.
func (p *HTTP) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

// Add adds a fault.
func (p *HTTP) Add(f Fault) *Active {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := &Active{Fault: f, proxy: p, removed: make(chan struct{})}
	p.faults = append(p.faults, a)
	return a
}

// Remove takes the fault out; requests that it keeps waiting go on.
func (a *Active) Remove() {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	if i := slices.Index(a.proxy.faults, a); i >= 0 {
		a.proxy.faults = slices.Delete(a.proxy.faults, i, i+1)
		close(a.removed)
	}
}

// Hits is how many requests it has happened to.
func (a *Active) Hits() int {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	return a.hits
}

// Close ends the proxy and all its connections.
func (p *HTTP) Close() error {
	close(p.closed)
	err := p.server.Close()
	p.running.Wait()
	return err
}

// pick returns the fault that happens to a request, nil for none.
func (p *HTTP) pick(r *http.Request) *Active {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	for _, a := range slices.Backward(p.faults) {
		if (a.Times == 0 || a.hits < a.Times) && (a.Match == nil || a.Match(r)) {
			a.hits++
			return a
		}
	}
	return nil
}

func (p *HTTP) handler(through http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := p.pick(r); a != nil {
			p.spoil(a, through, w, r)
			return
		}
		through.ServeHTTP(w, r)
	})
}

func (p *HTTP) spoil(a *Active, through http.Handler, w http.ResponseWriter, r *http.Request) {
	if a.Delay > 0 && !p.wait(r, time.After(a.Delay), nil) {
		reset(r)
	}
	if a.Stall && !p.wait(r, nil, a.removed) {
		reset(r)
	}
	switch {
	case a.Reset:
		reset(r)
	case a.Status != 0:
		for name, values := range a.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(a.Status)
		_, _ = io.WriteString(w, a.Body)
		return
	}
	if a.Strip != "" {
		r.Header.Del(a.Strip)
	}
	if r.Body != nil && (a.Rate > 0 || a.ResetUploadAfter > 0) {
		r.Body = &upload{ReadCloser: r.Body, p: p, a: a, r: r}
	}
	if a.Rate > 0 || a.ResetAnswerAfter > 0 {
		w = &answer{ResponseWriter: w, p: p, a: a, r: r}
	}
	through.ServeHTTP(w, r)
}

// wait returns false when the client or the proxy is gone first.
func (p *HTTP) wait(r *http.Request, timer <-chan time.Time, removed <-chan struct{}) bool {
	select {
	case <-timer:
	case <-removed:
	case <-r.Context().Done():
		return false
	case <-p.closed:
		return false
	}
	return true
}

type connKey struct{}

// reset ends the request's connection so that the client sees a reset, and the
// handler with it.
func reset(r *http.Request) {
	if conn, ok := r.Context().Value(connKey{}).(*net.TCPConn); ok {
		_ = conn.SetLinger(0)
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

var errReset = errors.New("the connection was reset on purpose")

// chunk is how much goes through at once of a body that is slowed down.
func chunk(rate int64) int64 { return max(rate/20, 1) }

// upload is a request's body with a fault. The transport reads it in a goroutine
// of its own, where a panic would end the test.
type upload struct {
	io.ReadCloser
	p    *HTTP
	a    *Active
	r    *http.Request
	seen int64
}

func (u *upload) Read(b []byte) (int, error) {
	if limit := u.a.ResetUploadAfter; limit > 0 {
		if u.seen >= limit {
			if conn, ok := u.r.Context().Value(connKey{}).(*net.TCPConn); ok {
				_ = conn.SetLinger(0)
				_ = conn.Close()
			}
			return 0, errReset
		}
		b = b[:min(int64(len(b)), limit-u.seen)]
	}
	if u.a.Rate > 0 {
		b = b[:min(int64(len(b)), chunk(u.a.Rate))]
	}
	n, err := u.ReadCloser.Read(b)
	u.seen += int64(n)
	if u.a.Rate > 0 && n > 0 && !u.p.wait(u.r, time.After(passing(n, u.a.Rate)), nil) {
		return n, errReset
	}
	return n, err
}

// passing is how long n bytes take.
func passing(n int, rate int64) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(rate)
}

// answer is an answer with a fault.
type answer struct {
	http.ResponseWriter
	p    *HTTP
	a    *Active
	r    *http.Request
	seen int64
}

func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *answer) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		part := b
		if w.a.Rate > 0 {
			part = part[:min(int64(len(part)), chunk(w.a.Rate))]
		}
		if limit := w.a.ResetAnswerAfter; limit > 0 {
			if w.seen >= limit {
				_ = http.NewResponseController(w.ResponseWriter).Flush()
				reset(w.r)
			}
			part = part[:min(int64(len(part)), limit-w.seen)]
		}
		n, err := w.ResponseWriter.Write(part)
		written += n
		w.seen += int64(n)
		if err != nil {
			return written, err
		}
		if w.a.Rate > 0 {
			_ = http.NewResponseController(w.ResponseWriter).Flush()
			if !w.p.wait(w.r, time.After(passing(n, w.a.Rate)), nil) {
				return written, errReset
			}
		}
		b = b[n:]
	}
	return written, nil
}
