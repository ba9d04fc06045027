package trace

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

func TestSend(t *testing.T) {
	got := &collector.ExportTraceServiceRequest{}
	var header http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, got)
		}
		if err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	e, err := NewExporter("", time.Minute, Environment{
		"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL + "/", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b, other=1",
		"OTEL_RESOURCE_ATTRIBUTES": "service.name=ci,team=x",
	})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Unix(100, 5)
	err = e.Send(t.Context(), []Span{
		{Trace: IDOf("job"), ID: SpanIDOf("root"), Name: "job", Began: began, Ended: began.Add(time.Second)},
		{Trace: IDOf("job"), ID: NewSpanID(), Parent: SpanIDOf("root"), Name: "run", Began: began, Ended: began, Error: "lost", Attributes: []Attribute{{"a", "b"}, {"n", int64(7)}, {"none", ""}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if header.Get("X-Key") != "a b" || header.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("headers %v", header)
	}
	spans := got.ResourceSpans[0].ScopeSpans[0].Spans
	if len(spans) != 2 || string(spans[1].ParentSpanId) != string(spans[0].SpanId) || spans[0].ParentSpanId != nil ||
		string(spans[0].TraceId) != string(spans[1].TraceId) || spans[0].StartTimeUnixNano != 100_000_000_005 {
		t.Errorf("spans %v", spans)
	}
	if spans[1].Status.Message != "lost" || len(spans[1].Attributes) != 2 || spans[1].Attributes[1].Value.GetIntValue() != 7 {
		t.Errorf("span %v", spans[1])
	}
	if name := got.ResourceSpans[0].Resource.Attributes[0].Value.GetStringValue(); name != "ci" {
		t.Errorf("the service is %q", name)
	}
}

// A collector that takes the connection and says nothing.
func TestSendGivesUp(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	e := &Exporter{Endpoint: "http://" + listener.Addr().String(), Timeout: 10 * time.Millisecond}
	if err := e.Send(t.Context(), []Span{{Name: "x"}}); err == nil {
		t.Error("a silent collector has answered")
	}
}

func TestNewExporter(t *testing.T) {
	tests := []struct {
		name, endpoint, want string
		env                  Environment
		err                  error
	}{
		{name: "off"},
		{name: "settings win", endpoint: "http://s/v1/traces", env: Environment{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e"}, want: "http://s/v1/traces"},
		{name: "all signals", env: Environment{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:4318"}, want: "http://e:4318/v1/traces"},
		{name: "traces", env: Environment{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, want: "http://t/x"},
		{name: "disabled", env: Environment{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e", "OTEL_SDK_DISABLED": "true"}},
		{name: "another protocol", env: Environment{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, err: ErrProtocol},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := NewExporter(tt.endpoint, time.Second, tt.env)
			got := ""
			if e != nil {
				got = e.Endpoint
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || !errors.Is(err, tt.err) {
				t.Errorf("%v, -want +got %s", err, diff)
			}
		})
	}
	var none *Exporter
	if err := none.Send(t.Context(), []Span{{}}); err != nil {
		t.Error(err)
	}
}
