package faultproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// echo answers with the request's body, and "hello" if there is none.
func echo(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if len(body) == 0 {
			body = []byte("hello " + r.Host)
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func startHTTP(t *testing.T) *HTTP {
	t.Helper()
	p, err := StartHTTP(t.Context(), "127.0.0.1:0", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// client never sends a request twice, as the default one does when an idle
// connection turns out to be closed.
func client(t *testing.T) *http.Client {
	transport := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

func call(t *testing.T, url, body string) (int, string, error) {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPut
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client(t).Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}

func TestHTTPPassesOn(t *testing.T) {
	p := startHTTP(t)
	status, body, err := call(t, p.URL(), "")
	if status != 200 || body != "hello "+p.Address() || err != nil {
		t.Errorf("got %d %q %v", status, body, err)
	}
	if p.Requests() != 1 {
		t.Errorf("%d requests", p.Requests())
	}
}

func TestHTTPStatusForSomeRequests(t *testing.T) {
	p := startHTTP(t)
	busy := p.Add(Fault{
		Match: func(r *http.Request) bool { return r.URL.Path == "/busy" }, Times: 2,
		Status: 503, Body: "later", Header: http.Header{"Retry-After": {"1"}},
	})
	var got []string
	for _, path := range []string{"/", "/busy", "/busy", "/busy"} {
		status, _, err := call(t, p.URL()+path, "")
		got = append(got, fmt.Sprint(status, err))
	}
	if want := "[200 <nil> 503 <nil> 503 <nil> 200 <nil>]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if busy.Hits() != 2 {
		t.Errorf("%d hits", busy.Hits())
	}
	p.Add(Fault{Status: 404})
	if status, _, _ := call(t, p.URL(), ""); status != 404 {
		t.Errorf("the last fault does not count: %d", status)
	}
}

func TestHTTPResets(t *testing.T) {
	long := strings.Repeat("0123456789", 100_000)
	for name, fault := range map[string]Fault{
		"at once":               {Reset: true},
		"in the upload":         {ResetUploadAfter: 1000},
		"in the answer":         {ResetAnswerAfter: 1000},
		"after a while":         {Delay: time.Millisecond, Reset: true},
		"in the answer, slow":   {Rate: 1 << 20, ResetAnswerAfter: 1000},
		"in the upload, slowly": {Rate: 1 << 20, ResetUploadAfter: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			p := startHTTP(t)
			p.Add(fault)
			_, body, err := call(t, p.URL(), long)
			if err == nil || len(body) > 1000 {
				t.Errorf("got %d bytes, %v", len(body), err)
			}
		})
	}
}

func TestHTTPStallsUntilRemoved(t *testing.T) {
	p := startHTTP(t)
	stall := p.Add(Fault{Stall: true})
	done := make(chan error, 1)
	go func() {
		answer, err := client(t).Get(p.URL())
		if err == nil {
			err = answer.Body.Close()
		}
		done <- err
	}()
	for stall.Hits() == 0 {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-done:
		t.Fatal("it went on:", err)
	default:
	}
	stall.Remove()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHTTPCloseEndsAStall(t *testing.T) {
	p, err := StartHTTP(t.Context(), "127.0.0.1:0", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	stall := p.Add(Fault{Stall: true})
	done := make(chan error, 1)
	go func() {
		answer, err := client(t).Get(p.URL())
		if err == nil {
			answer.Body.Close()
		}
		done <- err
	}()
	for stall.Hits() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("there was an answer")
	}
}

func TestHTTPSlow(t *testing.T) {
	p := startHTTP(t)
	p.Add(Fault{Rate: 10_000})
	start := time.Now()
	_, body, err := call(t, p.URL(), strings.Repeat("x", 2000))
	if len(body) != 2000 || err != nil {
		t.Errorf("got %d bytes, %v", len(body), err)
	}
	if took := time.Since(start); took < 300*time.Millisecond { // 200 ms up and 200 ms down
		t.Errorf("it took %s", took)
	}
}

func TestHTTPServerDown(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	p, err := StartHTTP(t.Context(), "127.0.0.1:0", server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	server.Close()
	if status, _, err := call(t, p.URL(), ""); err == nil {
		t.Errorf("got status %d", status)
	}
}

func startTCP(t *testing.T) *TCP {
	t.Helper()
	p, err := StartTCP(t.Context(), "127.0.0.1:0", strings.TrimPrefix(echo(t), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestTCP(t *testing.T) {
	p := startTCP(t)
	get := func() error {
		status, _, err := call(t, "http://"+p.Address(), "")
		if err == nil && status != 200 {
			err = fmt.Errorf("status %d", status)
		}
		return err
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	p.Refuse(true)
	if err := get(); err == nil {
		t.Error("it does not refuse")
	}
	p.Refuse(false)
	p.ResetAfter(10)
	if err := get(); err == nil {
		t.Error("it does not reset")
	}
	p.ResetAfter(0)
	if err := get(); err != nil {
		t.Error(err)
	}
	if p.Accepted() != 4 {
		t.Errorf("%d connections", p.Accepted())
	}
}

func TestTCPHoldAndCut(t *testing.T) {
	p := startTCP(t)
	p.Hold(true)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := []byte("GET / HTTP/1.0\r\n\r\n")
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	answered := make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(conn)
		answered <- text
	}()
	select {
	case text := <-answered:
		t.Fatalf("it passed %q", text)
	case <-time.After(50 * time.Millisecond): // nothing tells that nothing comes
	}
	p.Hold(false)
	if text := <-answered; !bytes.Contains(text, []byte("hello")) {
		t.Errorf("got %q", text)
	}

	second, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for p.Accepted() < 2 {
		time.Sleep(time.Millisecond)
	}
	p.Cut()
	if _, err := second.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
}
