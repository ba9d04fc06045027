package stack

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	// probeEvery is small beside what a start takes, about 3 s in all.
	probeEvery = 50 * time.Millisecond
	// lastLines of a log are shown when its daemon has died.
	lastLines = 15
)

// await probes until it succeeds. It gives up when limit has passed, and at
// once when one of the parts that the probe depends on has died.
func await(ctx context.Context, what string, limit time.Duration, on []part, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		if dead, ok := firstDead(on); ok {
			return fmt.Errorf("wait for %s: %w", what, diedError(dead))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: not there after %s: %w", what, limit, err)
		case <-tick.C:
		}
	}
}

func firstDead(list []part) (part, bool) {
	for _, p := range list {
		if p.Pid() == 0 {
			return p, true
		}
	}
	return part{}, false
}

func diedError(p part) error {
	return fmt.Errorf("%s has died; the end of %s:\n  %s", p.Name, p.LogFile, strings.Join(p.LastLines(lastLines), "\n  "))
}
