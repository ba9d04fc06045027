package executor

import (
	"cmp"
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"podlane/internal/stagelog"
)

// Observation collects what is told about one stage while it runs. Its methods
// work on a nil one, and from any goroutine.
type Observation struct {
	mu   sync.Mutex
	line stagelog.Line
}

// Phase begins a part of the stage, "login", say, and returns the function that
// ends it:
//
//	defer s.seen.Phase("login")()
func (o *Observation) Phase(name string) (end func()) {
	began := time.Now()
	return func() { o.PhaseTook(name, began, time.Since(began)) }
}

// PhaseTook adds a part that has ended. A part of no length is left out.
func (o *Observation) PhaseTook(name string, began time.Time, took time.Duration) {
	if o == nil || took <= 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.line.Phases = append(o.line.Phases, stagelog.Phase{Name: name, Began: began, Seconds: took.Seconds()})
}

// Pod says where the stage runs; node may be empty.
func (o *Observation) Pod(namespace, name, node string) {
	o.set(func(line *stagelog.Line) {
		line.Namespace, line.Pod = namespace, name
		if node != "" {
			line.Node = node
		}
	})
}

// cacheResults are what can become of a cache, from worst to best.
var cacheResults = []string{"error", "miss", "fallback", "saved", "unchanged", "hit", "off"}

// Cache says what became of one of the stage's caches, and how many bytes were
// moved for it: "hit", "fallback", "miss", "error", "saved", "unchanged" or
// "off". Of several the worst counts.
func (o *Observation) Cache(result string, bytes int64) {
	o.set(func(line *stagelog.Line) {
		line.CacheBytes += bytes
		if line.Cache == "" || slices.Index(cacheResults, result) < slices.Index(cacheResults, line.Cache) {
			line.Cache = result
		}
	})
}

// cacheSoFar is what became of the caches in the last stage that had any.
func (s *Stage) cacheSoFar() string {
	cache := ""
	for _, line := range s.earlier() {
		cache = cmp.Or(line.Cache, cache)
	}
	return cache
}

func (o *Observation) set(change func(*stagelog.Line)) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	change(&o.line)
}

// take returns what is known, as a copy.
func (o *Observation) take() stagelog.Line {
	o.mu.Lock()
	defer o.mu.Unlock()
	line := o.line
	line.Phases = slices.Clone(line.Phases)
	return line
}

// Observed runs a stage and tells the people who run the runner about it: see
// Observer. Whatever goes wrong with that, the stage's own result stands.
func (s *Stage) Observed(ctx context.Context, stage string, do func(context.Context) error) error {
	began := time.Now()
	s.seen = &Observation{}
	output := &counter{w: s.Output}
	s.Output = output
	err := do(ctx)
	s.release(ctx)
	line := s.seen.take()
	line.Stage, line.Began, line.OutputBytes = stage, began, output.bytes()
	s.report(ctx, line, err)
	return err
}

// counter counts what is written.
type counter struct {
	w  io.Writer
	mu sync.Mutex
	n  int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += int64(n)
	return n, err
}

func (c *counter) bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
