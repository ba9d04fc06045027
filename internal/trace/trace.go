// Package trace sends what a job's processes did as OpenTelemetry spans over
// OTLP/HTTP with protobuf
// (https://opentelemetry.io/docs/specs/otlp/#otlphttp). Ids are derived from
// names, so that processes that never meet make one trace.
//
// It is not the OpenTelemetry SDK: spans here are written when they have ended,
// all of a process in one request. The SDK's exporter would bring gRPC along,
// into each of a job's ten processes.
package trace

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	otlp "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// ID is a trace's.
type ID [16]byte

// String is the id as backends show it.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// SpanID is a span's. The zero value is none.
type SpanID [8]byte

// IDOf derives a trace's id from a name.
func IDOf(name string) ID {
	sum := sha256.Sum256([]byte("trace\x00" + name))
	return ID(sum[:16])
}

// SpanIDOf derives a span's id from a name.
func SpanIDOf(name string) SpanID {
	sum := sha256.Sum256([]byte("span\x00" + name))
	return SpanID(sum[:8])
}

// NewSpanID makes an id that nobody else has.
func NewSpanID() SpanID {
	var id SpanID
	_, _ = rand.Read(id[:])
	return id
}

// Span is something that has ended.
type Span struct {
	Trace      ID
	ID, Parent SpanID
	Name       string
	Began      time.Time
	Ended      time.Time
	// Error is what went wrong; empty means nothing.
	Error      string
	Attributes []Attribute
}

// Attribute is a name and a value of type string, int64, float64 or bool.
type Attribute struct {
	Key   string
	Value any
}

// Exporter sends spans to one endpoint. A nil one sends nothing.
type Exporter struct {
	// Endpoint is the whole URL, with /v1/traces.
	Endpoint string
	// Headers go with every request; they may hold a key.
	Headers map[string]string
	// Timeout bounds a request, with its connection.
	Timeout time.Duration
	// Resource describes the program.
	Resource []Attribute
	// Transport is for tests and certificates; nil means a plain one.
	Transport http.RoundTripper
}

// Send sends spans in one request and waits for the answer. There is no second
// try: a lost span is a lesser evil than a job that waits.
func (e *Exporter) Send(ctx context.Context, spans []Span) error {
	if e == nil || len(spans) == 0 {
		return nil
	}
	body, err := proto.Marshal(e.request(spans))
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.Endpoint, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	for key, value := range e.Headers {
		request.Header.Set(key, value)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	client := &http.Client{Transport: e.Transport}
	if e.Transport == nil {
		plain := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
		client.Transport = plain
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("send spans: %s answered %s", e.Endpoint, response.Status)
	}
	return nil
}

func (e *Exporter) request(spans []Span) *collector.ExportTraceServiceRequest {
	out := make([]*otlp.Span, len(spans))
	for i, s := range spans {
		out[i] = &otlp.Span{
			TraceId: s.Trace[:], SpanId: s.ID[:], Name: s.Name, Kind: otlp.Span_SPAN_KIND_INTERNAL,
			StartTimeUnixNano: uint64(s.Began.UnixNano()), EndTimeUnixNano: uint64(s.Ended.UnixNano()),
			Attributes: keyValues(s.Attributes),
		}
		if s.Parent != (SpanID{}) {
			out[i].ParentSpanId = slices.Clone(s.Parent[:])
		}
		if s.Error != "" {
			out[i].Status = &otlp.Status{Code: otlp.Status_STATUS_CODE_ERROR, Message: s.Error}
		}
	}
	return &collector.ExportTraceServiceRequest{ResourceSpans: []*otlp.ResourceSpans{{
		Resource:   &resource.Resource{Attributes: keyValues(e.Resource)},
		ScopeSpans: []*otlp.ScopeSpans{{Scope: &common.InstrumentationScope{Name: "podlane"}, Spans: out}},
	}}}
}

func keyValues(attributes []Attribute) []*common.KeyValue {
	var out []*common.KeyValue
	for _, a := range attributes {
		value := &common.AnyValue{}
		switch v := a.Value.(type) {
		case string:
			if v == "" {
				continue
			}
			value.Value = &common.AnyValue_StringValue{StringValue: v}
		case int64:
			value.Value = &common.AnyValue_IntValue{IntValue: v}
		case float64:
			value.Value = &common.AnyValue_DoubleValue{DoubleValue: v}
		case bool:
			value.Value = &common.AnyValue_BoolValue{BoolValue: v}
		default:
			continue
		}
		out = append(out, &common.KeyValue{Key: a.Key, Value: value})
	}
	return out
}
