package runnersim_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"podlane/test/runnersim"
)

var update = flag.Bool("update", false, "write the golden files again")

// bed is a runner with the driver of testdata and a fake GitLab.
type bed struct {
	*fakeGitLab
	dir    string // DRIVER_DIR
	cfg    runnersim.Config
	log    *syncBuffer
	cancel context.CancelFunc
	done   chan error
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newBed(t *testing.T) *bed {
	t.Helper()
	driver, err := filepath.Abs("testdata/driver.sh")
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{fakeGitLab: newFakeGitLab(t), dir: t.TempDir(), log: &syncBuffer{}}
	b.cfg = runnersim.Config{
		URL: b.URL, Token: "glrt-t1_abcdefghijkl", Name: "testrunner", TempDir: t.TempDir(),
		Environ: []string{"PATH=" + os.Getenv("PATH"), "DRIVER_DIR=" + b.dir},
		Custom: runnersim.Custom{
			ConfigExec: driver, ConfigArgs: []string{"config"},
			PrepareExec: driver, PrepareArgs: []string{"prepare"},
			RunExec: driver, RunArgs: []string{"run"},
			CleanupExec: driver, CleanupArgs: []string{"cleanup"},
			GracefulKillTimeout: 5 * time.Second, ForceKillTimeout: time.Second,
		},
		CheckInterval:    10 * time.Millisecond,
		UpdateInterval:   20 * time.Millisecond,
		PrepareRetryWait: 5 * time.Millisecond,
		StageRetryWait:   5 * time.Millisecond,
		Log:              b.log,
	}
	return b
}

// start runs the runner until the test ends or stop is called.
func (b *bed) start(t *testing.T) {
	t.Helper()
	runner, err := runnersim.Open("", b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.done = cancel, make(chan error, 1)
	go func() { b.done <- runner.Run(ctx) }()
	t.Cleanup(func() { b.stop(t) })
}

func (b *bed) stop(t *testing.T) {
	t.Helper()
	if b.cancel == nil {
		return
	}
	b.cancel()
	b.cancel = nil
	if err := <-b.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	left, err := os.ReadDir(b.cfg.TempDir)
	if err != nil || len(left) > 0 {
		t.Errorf("TempDir holds %v, %v after all jobs; want nothing", left, err)
	}
}

// runOne runs one job to its end.
func (b *bed) runOne(t *testing.T, job map[string]any) (log string, last map[string]any) {
	t.Helper()
	b.add(1, job)
	b.start(t)
	log, last = b.wait(t, 1)
	b.stop(t)
	return log, last
}

func (b *bed) calls(t *testing.T) string {
	t.Helper()
	return strings.Join(strings.Fields(b.read(t, "calls")), " ")
}

func (b *bed) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func (b *bed) write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
