package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"podlane/executor/pod"
	"podlane/podagent"
)

// cacheLink gives orders to podlane-helper over sessions: it opens one when the
// first order comes, and another when a stream breaks.
type cacheLink struct {
	connect podagent.Session
	// lost says why it is of no use to connect again; nil means that it is.
	lost   func(ctx context.Context) error
	header podagent.CacheHeader

	session *podagent.CacheSession
	// dirty is set while only the end of a session, or another one, can tell
	// that no half of a cache lies in the project.
	dirty bool
	// undone is how many paths were taken back after a break.
	undone int
}

const (
	// cacheTries is how often an order is given whose session breaks.
	cacheTries = 4
	// cachePauses lie between them: the first break is mostly a connection that
	// was cut.
	cachePause = 200 * time.Millisecond
	// cleanLimit bounds the last try to find out that the project is clean.
	cleanLimit = time.Minute
)

// exitNoCommand is how podlane-helper ends that does not know a command.
const exitNoCommand = 2

func (s *Stage) newCacheLink(client *pod.Client, header podagent.CacheHeader) *cacheLink {
	name := pod.Name(s.Job)
	argv := pod.AgentCommand(pod.HelperContainer, s.Settings, "cache")
	return &cacheLink{
		header: header,
		lost:   func(ctx context.Context) error { return client.WhyLost(ctx, name) },
		connect: func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
			return client.Exec(ctx, name, pod.HelperContainer, argv, pod.Streams{Stdin: stdin, Stdout: stdout, Stderr: stderr})
		},
	}
}

// cacheOrder is an order and what belongs to it on this side.
type cacheOrder struct {
	podagent.CacheOrder
	// sign answers asks; nil for orders that have none.
	sign func(ctx context.Context, ask podagent.CacheAsk) podagent.CacheAnswer
	// again is called when the order has to be given once more.
	again func(ctx context.Context)
	// progress may be nil.
	progress func(podagent.CacheProgress)
}

// do gives an order, again if a session breaks over it.
func (l *cacheLink) do(ctx context.Context, o cacheOrder) (podagent.CacheDone, error) {
	for try := 1; ; try++ {
		done, err := l.try(ctx, o, try > 1)
		var answer *podagent.CacheError
		switch {
		case err == nil || errors.As(err, &answer):
			return done, err
		case ctx.Err() != nil:
			return done, context.Cause(ctx)
		case try == cacheTries:
			return done, fmt.Errorf("given up after %d tries: %w", try, err)
		}
		if permanent := l.hopeless(ctx, err); permanent != nil {
			return done, permanent
		}
		if o.again != nil {
			o.again(ctx)
		}
		sleep(ctx, cachePause<<(2*(try-1)))
	}
}

// hopeless tells why connecting again would be of no use, or nil.
func (l *cacheLink) hopeless(ctx context.Context, err error) error {
	var exit *pod.ExitError
	if errors.As(err, &exit) && exit.Code == exitNoCommand {
		return fmt.Errorf("podlane-helper in the helper image knows no caches: %w; hint: podlane and the helper image are of different versions", err)
	}
	return l.lost(ctx)
}

// try gives an order. again says that a session broke over it, which may have
// been for a reason that would come again.
func (l *cacheLink) try(ctx context.Context, o cacheOrder, again bool) (podagent.CacheDone, error) {
	if err := l.open(ctx); err != nil {
		return podagent.CacheDone{}, err
	}
	if lacking := l.session.OutOfMemory; again && lacking != "" {
		l.session.OutOfMemory = ""
		return podagent.CacheDone{}, &podagent.CacheError{Code: podagent.CacheNoMemory, Reason: "podlane-helper was killed, because " + lacking + " was not enough; hint: resources.helper.memory_limit"}
	}
	l.dirty = o.Restore != nil
	done, err := l.session.Do(ctx, o.CacheOrder, o.sign, o.progress)
	var answer *podagent.CacheError
	if err == nil || errors.As(err, &answer) {
		l.dirty = false
		return done, err
	}
	l.hangUp()
	return done, err
}

func (l *cacheLink) open(ctx context.Context) error {
	if l.session != nil {
		return nil
	}
	session, err := podagent.OpenCache(ctx, l.connect, l.header)
	if err != nil {
		return err
	}
	l.session, l.dirty = session, false
	l.undone += session.Removed
	return nil
}

// hangUp ends the session. If that went in order the project is clean.
func (l *cacheLink) hangUp() {
	if l.session == nil {
		return
	}
	if err := l.session.Close(); err == nil {
		l.dirty = false
	}
	l.session = nil
}

// close ends the link. An error means that half a cache may lie in the project,
// and that the pod can't be reached to take it away.
func (l *cacheLink) close(ctx context.Context) error {
	l.hangUp()
	if !l.dirty {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	for try := 0; ; try++ {
		err := l.open(ctx)
		if err == nil {
			l.hangUp()
			return nil
		}
		if lost := l.hopeless(ctx, err); lost != nil {
			return fmt.Errorf("take back a cache that was restored in part: %w", lost)
		}
		if sleep(ctx, min(cachePause<<try, 5*time.Second)); ctx.Err() != nil {
			return fmt.Errorf("take back a cache that was restored in part: %w", err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
