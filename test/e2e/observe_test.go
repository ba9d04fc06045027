package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/slim/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
)

// otlpReceiver is an OpenTelemetry collector as far as OTLP/HTTP goes.
type otlpReceiver struct {
	url   string
	mu    sync.Mutex
	spans []*otlp.Span
}

func newOTLPReceiver(t *testing.T) *otlpReceiver {
	t.Helper()
	r := &otlpReceiver{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		message := &collector.ExportTraceServiceRequest{}
		body, err := io.ReadAll(request.Body)
		if err == nil {
			err = proto.Unmarshal(body, message)
		}
		if err != nil || request.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", request.URL, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, resource := range message.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				r.spans = append(r.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(server.Close)
	r.url = server.URL + "/v1/traces"
	return r
}

// ofJob returns the spans of a job's trace by name, once cleanup has sent its
// own, and fails unless they make one tree.
func (r *otlpReceiver) ofJob(t *testing.T, job *gitlabsim.Job) map[string]*otlp.Span {
	t.Helper()
	var root *otlp.Span
	await(t, "the job's root span", func() bool {
		root = r.root(job)
		return root != nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	byName, ids := map[string]*otlp.Span{}, map[string]bool{}
	for _, span := range r.spans {
		if bytes.Equal(span.TraceId, root.TraceId) {
			byName[span.Name] = span
			ids[string(span.SpanId)] = true
		}
	}
	for name, span := range byName {
		if name != "job" && !ids[string(span.ParentSpanId)] {
			t.Errorf("the span %s has no parent", name)
		}
		if span.StartTimeUnixNano < root.StartTimeUnixNano || span.EndTimeUnixNano > root.EndTimeUnixNano {
			t.Errorf("the span %s lies outside of the job's", name)
		}
	}
	return byName
}

func (r *otlpReceiver) root(job *gitlabsim.Job) *otlp.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, span := range r.spans {
		if span.Name == "job" && attribute(span, "cicd.pipeline.task.run.id") == fmt.Sprint(job.ID) {
			return span
		}
	}
	return nil
}

// traces counts the traces that spans belong to.
func (r *otlpReceiver) traces() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := map[string]bool{}
	for _, span := range r.spans {
		ids[string(span.TraceId)] = true
	}
	return len(ids)
}

// await waits for something that comes a moment after a job's end.
func await(t *testing.T, what string, there func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !there(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s has not come", what)
		}
	}
}

// A job's processes, which never meet, make one trace, one line each in a log,
// and a table of times in the job log.
func TestWhatAJobTells(t *testing.T) {
	t.Parallel()
	receiver := newOTLPReceiver(t)
	file := filepath.Join(t.TempDir(), "stages.jsonl")
	b := newBed(t, bed.Settings{"observe": {"log": quoted(file), "trace_endpoint": quoted(receiver.url), "trace_timeout": `"10s"`}})
	p := project(t, b, nil)
	caches := []gitlabsim.Cache{{Key: "told", Paths: []string{"deps"}, When: "always"}}
	o := runOn(t, b, gitlabsim.JobSpec{Project: p, Cache: caches, Script: []string{"mkdir deps; echo hello | tee deps/file", "exit 3"}, AfterScript: []string{"echo after"}})
	o.failed(t, 3)

	table := regexp.MustCompile(`section_start:\d+:podlane_times\[collapsed=true\]\r\x1b\[0Kwhere the time went: .*s\n(  [a-z_ ]+ +[0-9.ms]+\n)+\x1b\[0Ksection_end:\d+:podlane_times`)
	if !table.MatchString(o.trace) {
		t.Errorf("the log has no table of times")
	}
	for _, label := range []string{"ran the script", "ran after_script", "fetched sources", "started the pod"} {
		o.logs(t, "  "+label+" ")
	}

	spans := receiver.ofJob(t, o.job)
	for _, name := range []string{"config", "prepare", "schedule", "start", "get_sources", "build_script", "after_script", "cleanup_file_variables", "cleanup"} {
		if spans[name] == nil {
			t.Errorf("there is no span %s", name)
		}
	}
	again := runOn(t, b, gitlabsim.JobSpec{Project: p, Cache: caches, Script: []string{"cat deps/file"}})
	again.succeeded(t)
	if n := receiver.traces(); n != 2 {
		t.Errorf("two jobs have made %d traces", n)
	}
	restored := receiver.ofJob(t, again.job)
	for _, name := range []string{"login", "lookup", "transfer", "extract"} {
		if b.HasStack() && restored[name] == nil {
			t.Errorf("there is no span %s", name)
		}
	}
	if result := attribute(restored["job"], "cicd.pipeline.task.run.result"); result != "success" {
		t.Errorf("the second job's result is %q", result)
	}
	if span := spans["build_script"]; span != nil && span.Status.GetCode() != otlp.Status_STATUS_CODE_ERROR {
		t.Errorf("the failed script's span has the status %v", span.Status)
	}
	if result := attribute(spans["job"], "cicd.pipeline.task.run.result"); result != "failure" {
		t.Errorf("the job's result is %q", result)
	}

	stages := map[string]map[string]any{}
	await(t, "cleanup's line", func() bool {
		for _, line := range jsonLines(t, file) {
			if line["job"] == float64(o.job.ID) {
				stages[fmt.Sprint(line["stage"])] = line
			}
		}
		return stages["cleanup"] != nil
	})
	for stage, line := range stages {
		for _, key := range []string{"job", "project_id", "pod", "seconds", "class", "trace_id", "time"} {
			if line[key] == nil {
				t.Errorf("the line of %s has no %s", stage, key)
			}
		}
		if problem, bad := line["trace_error"]; bad {
			t.Errorf("%s: %v", stage, problem)
		}
	}
	script := stages["build_script"]
	if n, _ := script["output_bytes"].(float64); script["class"] != "build_failure" || script["exit_code"] != float64(3) || n < 6 {
		t.Errorf("the script's line is %v", script)
	}
	if stages["cleanup"]["class"] != "success" {
		t.Errorf("cleanup's line is %v", stages["cleanup"])
	}
}

// A collector that takes connections and says nothing, a log that cannot be
// written: the job does not notice, and asks the collector once.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked sync.WaitGroup
	var mu sync.Mutex
	var connections []net.Conn
	asked.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			connections = append(connections, conn)
			mu.Unlock()
		}
	})
	b := newBed(t, bed.Settings{"observe": {"log": `"/nowhere/at/all"`, "trace_endpoint": quoted("http://" + listener.Addr().String() + "/v1/traces")}})
	runOn(t, b, gitlabsim.JobSpec{Script: []string{"echo hello"}}).succeeded(t, "\nhello\n")
	listener.Close()
	asked.Wait()
	if len(connections) > 1 {
		t.Errorf("the collector was asked %d times", len(connections))
	}
	for _, conn := range connections {
		conn.Close()
	}
}

func attribute(span *otlp.Span, key string) string {
	if i := slices.IndexFunc(span.GetAttributes(), func(kv *common.KeyValue) bool { return kv.Key == key }); i >= 0 {
		return span.Attributes[i].Value.GetStringValue()
	}
	return ""
}

func jsonLines(t *testing.T, file string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var lines []map[string]any
	for scanner := bufio.NewScanner(strings.NewReader(string(text))); scanner.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			t.Fatalf("%v: %s", err, scanner.Text())
		}
		lines = append(lines, line)
	}
	return lines
}
