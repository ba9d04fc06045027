// Package e2e runs real jobs: a simulated GitLab hands them out, a runner calls
// the real podlane, and they run as pods on a real kubelet. `make test` starts
// what that needs.
package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
	"podlane/test/stack/vaultserver"
)

// shared is the bed of all tests that need no settings of their own.
var shared *bed.Bed

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	ctx := context.Background()
	var err error
	if shared, err = start(ctx, nil, nil); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	auditFrom := fileSize(shared.Stack.AuditLog)
	if shared.HasStack() {
		raw := vaultserver.RawLog(shared.Vault.AuditLog)
		given.offset[raw] = fileSize(raw)
	}
	secrets.Processes()
	code := m.Run()
	secrets.Stop()
	err = errors.Join(scanFiles(ctx, shared), shared.Close(), nothingLeft(ctx, ""), scanResult(shared.Stack.AuditLog, auditFrom))
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: after all tests:", err)
		return 1
	}
	return code
}

func start(ctx context.Context, settings bed.Settings, tune func(*runnersim.Config)) (*bed.Bed, error) {
	return startWith(ctx, settings, tune, func(*bed.Options) {})
}

// startWith is start with options that few tests need.
func startWith(ctx context.Context, settings bed.Settings, tune func(*runnersim.Config), change func(*bed.Options)) (*bed.Bed, error) {
	options := bed.Options{
		Root: ".", Environ: os.Environ(), Settings: settings, Concurrent: 12, Log: io.Discard,
		Tune: func(c *runnersim.Config) {
			c.PrepareRetryWait = 200 * time.Millisecond
			c.StageRetryWait = 200 * time.Millisecond
			if tune != nil {
				tune(c)
			}
		},
	}
	change(&options)
	return bed.Start(ctx, options)
}

// needsStack skips a test that needs more than any cluster has: the stack's
// registry, say.
func needsStack(t *testing.T) {
	t.Helper()
	if !shared.HasStack() {
		t.Skip("this cluster is not the test stack")
	}
}

// newBed starts a bed with settings of its own for one test.
func newBed(t *testing.T, settings bed.Settings) *bed.Bed {
	t.Helper()
	b, err := start(t.Context(), settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(scanFiles(context.WithoutCancel(t.Context()), b), b.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// project makes a project with one commit on a bed's GitLab.
func project(t *testing.T, b *bed.Bed, files map[string]string) *gitlabsim.Project {
	t.Helper()
	p, err := b.AddProject(t.Context(), gitlabsim.ProjectSpec{
		Path:      "group/p" + randomHex(),
		Variables: []gitlabsim.Variable{{Key: "MARKER", Value: marker, Masked: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == nil {
		files = map[string]string{"README": "hello from the checkout\n"}
	}
	if _, err := p.Commit(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	return p
}

// outcome is a job that has ended.
type outcome struct {
	gitlabsim.Result
	job   *gitlabsim.Job
	trace string
}

// jobLimit bounds one job of the tests.
const jobLimit = 5 * time.Minute

// run runs a job to its end on the shared bed.
func run(t *testing.T, spec gitlabsim.JobSpec) outcome {
	t.Helper()
	return runOn(t, shared, spec)
}

// runOn runs a job to its end and checks what holds for every job: the log came
// whole, and nothing is left on the cluster.
func runOn(t *testing.T, b *bed.Bed, spec gitlabsim.JobSpec) outcome {
	t.Helper()
	return finish(t, enqueue(t, b, spec))
}

func enqueue(t *testing.T, b *bed.Bed, spec gitlabsim.JobSpec) *gitlabsim.Job {
	t.Helper()
	if spec.Project == nil && spec.Pipeline == nil {
		spec.Project = project(t, b, nil)
	}
	if spec.IDTokens == nil {
		spec.IDTokens = b.IDTokens()
	}
	job, err := b.GitLab.Enqueue(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func finish(t *testing.T, job *gitlabsim.Job) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), jobLimit)
	defer cancel()
	result, err := job.Wait(ctx)
	trace, traceErr := job.Trace()
	if err := errors.Join(err, traceErr); err != nil {
		t.Fatalf("%v\n%s", err, trace)
	}
	o := outcome{Result: result, job: job, trace: string(trace)}
	secrets.Text("trace", job.URL(), o.trace)
	if !result.TraceIntact && result.State != gitlabsim.Canceled {
		t.Errorf("the log did not come whole")
	}
	if err := nothingLeft(t.Context(), job.URL()); err != nil {
		t.Error(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("job %d: %s %s, exit code %d\n%s", job.ID, result.State, result.FailureReason, result.ExitCode, tail(o.trace))
		}
	})
	return o
}

func tail(s string) string {
	if len(s) > 6000 {
		return "…" + s[len(s)-6000:]
	}
	return s
}

// succeeded, failed and systemFailed check how a job ended, and what its log
// must hold.
func (o outcome) succeeded(t *testing.T, want ...string) {
	t.Helper()
	if o.State != gitlabsim.Success {
		t.Errorf("the job is %s (%s), want success", o.State, o.FailureReason)
	}
	o.logs(t, want...)
}

func (o outcome) failed(t *testing.T, code int, want ...string) {
	t.Helper()
	if o.State != gitlabsim.Failed || o.FailureReason != "script_failure" || o.ExitCode != code {
		t.Errorf("the job is %s, %s, exit code %d; want failed, script_failure, %d", o.State, o.FailureReason, o.ExitCode, code)
	}
	o.logs(t, want...)
}

func (o outcome) systemFailed(t *testing.T, want ...string) {
	t.Helper()
	if o.State != gitlabsim.Failed || o.FailureReason != "runner_system_failure" {
		t.Errorf("the job is %s, %s; want failed, runner_system_failure", o.State, o.FailureReason)
	}
	o.logs(t, want...)
}

func (o outcome) logs(t *testing.T, want ...string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(o.trace, text) {
			t.Errorf("the log does not have %q", text)
		}
	}
}

func (o outcome) doesNotLog(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(o.trace, text) {
		t.Errorf("the log has %q", text)
	}
}

// nothingLeft waits until the job with that page, or all of them if jobURL is
// empty, have nothing on the cluster any more. Pods take a second to end.
func nothingLeft(ctx context.Context, jobURL string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		pods, err := shared.Kube.Pods(ctx, jobURL)
		secrets, err2 := shared.Kube.Secrets(ctx, jobURL)
		if err := errors.Join(err, err2); err != nil {
			return fmt.Errorf("look for what jobs have left: %w", err)
		}
		var left []string
		for _, p := range pods {
			left = append(left, "pod "+p.Name)
		}
		for _, s := range secrets {
			left = append(left, "secret "+s.Name)
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("job %s has left %s", jobURL, strings.Join(left, ", "))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func randomHex() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}
