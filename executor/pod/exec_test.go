package pod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// execServer speaks both protocols of exec, as API servers do
// (k8s.io/kubelet pkg/cri/streaming/remotecommand). The "program" that it runs
// repeats stdin in capitals and ends with the code that its argument names.
type execServer struct {
	// refuseWebSocket answers WebSocket requests as something that knows none.
	refuseWebSocket bool

	mu       sync.Mutex
	requests []string
}

func (s *execServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protocol := "SPDY"
	if wsstream.IsWebSocketRequest(r) {
		protocol = "WebSocket"
	}
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+protocol)
	s.mu.Unlock()
	switch {
	case r.URL.Query().Get("command") != "upper" || r.URL.Query().Get("container") != BuildContainer:
		http.Error(w, "no such program", http.StatusBadRequest)
	case protocol == "SPDY":
		s.spdy(w, r)
	case s.refuseWebSocket:
		http.Error(w, "upgrade what?", http.StatusBadRequest)
	default:
		s.webSocket(w, r)
	}
}

func (s *execServer) webSocket(w http.ResponseWriter, r *http.Request) {
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{remotecommand.StreamProtocolV5Name: {
		Binary:   true,
		Channels: []wsstream.ChannelType{wsstream.ReadChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.IgnoreChannel},
	}})
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return
	}
	defer conn.Close()
	program(r, streams[0], streams[1], streams[2], streams[3])
}

func (s *execServer) spdy(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
		return
	}
	type accepted struct {
		httpstream.Stream
		replied <-chan struct{}
	}
	streams := make(chan accepted, 4)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replySent <-chan struct{}) error {
		streams <- accepted{stream, replySent}
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	byType := map[string]io.ReadWriteCloser{}
	for range 4 {
		stream := <-streams
		<-stream.replied
		byType[stream.Headers().Get(corev1.StreamType)] = stream
	}
	program(r, byType[corev1.StreamTypeStdin], byType[corev1.StreamTypeStdout], byType[corev1.StreamTypeStderr], byType[corev1.StreamTypeError])
}

// program runs the "program" and reports its end as version 4 of the protocol
// and later ones do.
func program(r *http.Request, stdin io.Reader, stdout, stderr, status io.WriteCloser) {
	input, _ := io.ReadAll(stdin)
	_, _ = stdout.Write(bytes.ToUpper(input))
	_, _ = fmt.Fprint(stderr, "done")
	end := metav1.Status{Status: metav1.StatusSuccess}
	if code := r.URL.Query()["command"][1]; code != "0" {
		end = metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: code}}},
		}
	}
	text, _ := json.Marshal(end)
	_, _ = status.Write(text)
	for _, s := range []io.Closer{stdout, stderr, status} {
		_ = s.Close()
	}
}

func clientOf(t *testing.T, url string) *Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	config := &rest.Config{Host: url, APIPath: "/api", ContentConfig: rest.ContentConfig{
		GroupVersion: &corev1.SchemeGroupVersion, NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion(),
	}}
	client, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return &Client{rest: client, config: config, params: runtime.NewParameterCodec(scheme), namespace: "ci"}
}

// Exec takes WebSocket where it can, and SPDY where that is all there is: the
// API server is older, or a proxy stands in between.
func TestExecChoosesTheProtocol(t *testing.T) {
	tests := []struct {
		name     string
		refuse   bool
		requests []string
	}{
		{"WebSocket", false, []string{"GET WebSocket"}},
		{"SPDY", true, []string{"GET WebSocket", "POST SPDY"}},
	}
	for _, tt := range tests {
		for _, code := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s, exit code %d", tt.name, code), func(t *testing.T) {
				handler := &execServer{refuseWebSocket: tt.refuse}
				server := httptest.NewServer(handler)
				defer server.Close()
				var stdout, stderr bytes.Buffer
				input := strings.Repeat("some text ", 20000)
				err := clientOf(t, server.URL).Exec(t.Context(), "p", BuildContainer, []string{"upper", fmt.Sprint(code)},
					Streams{Stdin: strings.NewReader(input), Stdout: &stdout, Stderr: &stderr})
				var exit *ExitError
				if code == 0 && err != nil || code != 0 && (!errors.As(err, &exit) || exit.Code != code) {
					t.Errorf("ended with %v", err)
				}
				if stdout.String() != strings.ToUpper(input) || stderr.String() != "done" {
					t.Errorf("got %d bytes of output and %q", stdout.Len(), stderr.String())
				}
				handler.mu.Lock()
				defer handler.mu.Unlock()
				if !slices.Equal(handler.requests, tt.requests) {
					t.Errorf("asked %v, want %v", handler.requests, tt.requests)
				}
			})
		}
	}
}

// When a context ends in the middle of a write, Exec waits for that write: the
// next exec begins where this one has ended.
func TestExecWaitsForAWriteUnderWay(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		server := httptest.NewServer(&execServer{refuseWebSocket: refuse})
		defer server.Close()
		ctx, cancel := context.WithCancel(t.Context())
		stdout := &slowWriter{begun: make(chan struct{}), proceed: make(chan struct{})}
		ended := make(chan error)
		go func() {
			ended <- clientOf(t, server.URL).Exec(ctx, "p", BuildContainer, []string{"upper", "0"},
				Streams{Stdin: strings.NewReader(strings.Repeat("some text ", 20000)), Stdout: stdout, Stderr: io.Discard})
		}()
		<-stdout.begun
		cancel()
		select {
		case err := <-ended:
			t.Fatalf("Exec has returned %v while a write was under way", err)
		case <-time.After(50 * time.Millisecond):
		}
		close(stdout.proceed)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}
}

// slowWriter's first write waits until it may proceed.
type slowWriter struct {
	first          sync.Once
	begun, proceed chan struct{}
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.first.Do(func() {
		close(w.begun)
		<-w.proceed
	})
	return len(p), nil
}

// The node's end of an exec can be lost while its good end is not.
func TestAskAgainWhenTheAnswerIsLost(t *testing.T) {
	for name, tt := range map[string]struct {
		answers []string
		want    string
	}{
		"at once":         {[]string{`{"Said": "yes"}`}, "yes"},
		"lost, then half": {[]string{"", `{"Sai`, `{"Said": "yes"}`}, "yes"},
		"never":           {[]string{"", "", "", `{"Said": "yes"}`}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{remotecommand.StreamProtocolV5Name: {
					Binary:   true,
					Channels: []wsstream.ChannelType{wsstream.IgnoreChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.IgnoreChannel},
				}})
				_, streams, err := conn.Open(w, r)
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(streams[1], tt.answers[asked])
				_ = json.NewEncoder(streams[3]).Encode(metav1.Status{Status: metav1.StatusSuccess})
				asked++
			}))
			defer server.Close()
			var answer struct{ Said string }
			err := clientOf(t, server.URL).Ask(t.Context(), "p", BuildContainer, []string{"status"}, &answer)
			if answer.Said != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v", answer.Said, err)
			}
		})
	}
}

func TestClosedOutputTakesNothing(t *testing.T) {
	var b bytes.Buffer
	o := &open{w: &b}
	if _, err := o.Write([]byte("in time")); err != nil {
		t.Error(err)
	}
	o.close()
	if _, err := o.Write([]byte(" and late")); err == nil || b.String() != "in time" {
		t.Errorf("got %q and %v", b.String(), err)
	}
}

// What the API server refuses for a reason is not asked for again in another
// protocol's name. One that has just started may refuse what it grants later.
func TestExecTellsRefusals(t *testing.T) {
	for _, ready := range []bool{true, false} {
		t.Run(fmt.Sprint("ready ", ready), func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/readyz" && ready {
					fmt.Fprint(w, "ok")
					return
				}
				forbid(w)
			}))
			defer server.Close()
			err := clientOf(t, server.URL).Exec(t.Context(), "p", BuildContainer, []string{"upper", "0"}, Streams{Stdout: io.Discard})
			if err == nil || IsExecRefusal(err) != ready || !strings.Contains(err.Error(), "no exec for you") {
				t.Errorf("got %v, want the API server's own words", err)
			}
		})
	}
}

func forbid(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: `pods "p" is forbidden: no exec for you`,
	})
}

// An API server that starts answers 403 until it has read its rules.
func TestRefusalsOfAStartingServerPass(t *testing.T) {
	const refusals = 5
	var mu sync.Mutex
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/readyz" && asked < refusals:
			http.Error(w, "not yet", http.StatusInternalServerError)
		case r.URL.Path == "/readyz":
			fmt.Fprint(w, "ok")
		case asked < refusals:
			asked++
			forbid(w)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "p"}})
		}
	}))
	defer server.Close()
	c := clientOf(t, server.URL)
	c.budget, c.timeout = time.Minute, time.Minute
	if err := c.WhyLost(t.Context(), "p"); err != nil {
		t.Errorf("the pod is taken for lost: %v", err)
	}
	if p, err := c.Get(t.Context(), "p"); err != nil || p.Name != "p" {
		t.Errorf("got %v", err)
	}
}

// A refusal that lasts is said soon.
func TestRefusalsLast(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			forbid(w)
		}
	}))
	defer server.Close()
	c := clientOf(t, server.URL)
	c.budget, c.timeout = time.Hour, time.Minute
	var failure *Failure
	if err := c.WhyLost(t.Context(), "p"); !errors.As(err, &failure) || failure.Reason != "forbidden" {
		t.Errorf("got %v", err)
	}
	if _, err := c.Get(t.Context(), "p"); !IsForbidden(err) {
		t.Errorf("got %v", err)
	}
}
