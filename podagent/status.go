package podagent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Status is what a container of ours can say about itself.
type Status struct {
	// Stages are those that were started here, in order.
	Stages []StageStatus `json:"stages"`
	// CacheSession is set while caches are being restored or saved.
	CacheSession bool `json:"cache_session,omitempty"`
}

// StageStatus is the state of one stage.
type StageStatus struct {
	// ID is the one of Header.
	ID string `json:"id"`
	// Running is set until the supervisor has left a record, or has been killed.
	Running bool `json:"running,omitempty"`
	// Followed is set if a session of the runner's follows the stage now.
	Followed bool `json:"followed,omitempty"`
	// Cache is the one of Header.
	Cache       string      `json:"cache,omitempty"`
	Began       time.Time   `json:"began"`
	OutputBytes int64       `json:"output_bytes"`
	Exit        *ExitRecord `json:"exit,omitempty"`
}

// Look tells what runs and has run in this container. It is no sign of life: a
// spectator keeps no pod alive.
func Look(l Layout) (Status, error) {
	status := Status{Stages: []StageStatus{}}
	status.CacheSession = isHeld(l.cacheSession())
	stages, err := filepath.Glob(filepath.Join(l.State, "stages", "*"))
	if err != nil {
		return status, err
	}
	for _, path := range stages {
		dir := stageDir(path)
		begun, err := os.Stat(dir.supervised())
		if err != nil {
			continue // not started yet
		}
		s := StageStatus{ID: filepath.Base(path), Began: begun.ModTime()}
		s.Running, _ = isLocked(dir.supervised(), unix.LOCK_SH)
		s.Followed, _ = isLocked(dir.followed(), unix.LOCK_EX)
		if cache, err := os.ReadFile(dir.cache()); err == nil {
			s.Cache = string(cache)
		}
		if info, err := os.Stat(dir.log()); err == nil {
			s.OutputBytes = info.Size()
		}
		if record, err := readRecord(dir); err == nil {
			s.Exit, s.Running, s.OutputBytes = record, false, record.OutputBytes
		}
		status.Stages = append(status.Stages, s)
	}
	slices.SortFunc(status.Stages, func(a, b StageStatus) int { return a.Began.Compare(b.Began) })
	return status, nil
}

// WriteStatus writes what Look finds as one line of JSON.
func WriteStatus(l Layout, w io.Writer) error {
	status, err := Look(l)
	if err != nil {
		return fmt.Errorf("look at this container's stages: %w", err)
	}
	return json.NewEncoder(w).Encode(status)
}

// Watch copies a stage's output from offset to stdout as it grows, for whoever
// looks on from aside, and returns when the stage is over or stdin has ended.
// Its last event on stderr is "exit" or "error".
func Watch(ctx context.Context, l Layout, id string, offset int64, stdin io.Reader, stdout, stderr io.Writer) error {
	events := &eventWriter{w: stderr}
	if err := (Header{Stage: id, Offset: offset}).validate(); err != nil {
		return err
	}
	dir := l.stage(id)
	if !dir.begun() {
		return fmt.Errorf("no stage %s has been started here", id)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, stdin)
	}()
	record, err := follow(ctx, dir, offset, stdout)
	switch {
	case record != nil:
		events.send(Event{Event: EventExit, Exit: record})
	case err != nil && ctx.Err() == nil:
		events.fail(err)
	}
	return nil
}
