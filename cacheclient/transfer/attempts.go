package transfer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// attempts decides what follows a failed attempt of one range or part.
type attempts struct {
	client  *Client
	what    string // for notes: "bytes 0-99"
	failed  int    // attempts since something moved
	renewed bool
	wait    backoff.ExponentialBackOff
}

func (c *Client) attempts(what string) *attempts {
	return &attempts{client: c, what: what, wait: backoff.ExponentialBackOff{
		InitialInterval: c.config.Backoff, MaxInterval: 40 * c.config.Backoff,
		// Anything from half to one and a half: the jobs of a pipeline fail
		// together and should not come back together.
		RandomizationFactor: 0.5, Multiplier: 2,
	}}
}

// moved says that the attempt under way got somewhere.
func (a *attempts) moved() {
	a.failed, a.renewed = 0, false
	a.wait.Reset()
}

// next waits until it is time for another attempt, and says whether that needs
// a new signature. It returns an error if there will be none.
func (a *attempts) next(ctx context.Context, f *failure) (renew bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if f.renew && !a.renewed {
		a.renewed = true
		a.client.counts.Retries.Add(1)
		return true, nil
	}
	a.failed++
	switch {
	case !f.retry:
		return false, f.err
	case a.failed >= a.client.config.Attempts:
		return false, fmt.Errorf("given up after %d attempts: %w", a.failed, f.err)
	}
	if a.failed == 1 {
		a.wait.Reset()
	}
	wait := max(a.wait.NextBackOff(), f.after)
	a.client.config.Notify("%s: %v: trying again in %v", a.what, f.err, wait.Round(10*time.Millisecond))
	a.client.counts.Retries.Add(1)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// watch ends an attempt in which nothing moves.
type watch struct {
	cancel context.CancelCauseFunc
	stall  time.Duration
	timer  *time.Timer
}

// watched returns a context for one attempt that ends when the watch, once
// armed, isn't told for a while that something moved.
func (c *Client) watched(ctx context.Context) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{cancel: cancel, stall: c.config.Stall}
	w.timer = time.AfterFunc(w.stall, func() {
		cancel(fmt.Errorf("%w for %v", ErrStalled, w.stall))
	})
	return ctx, w
}

func (w *watch) moved()   { w.timer.Reset(w.stall) }
func (w *watch) suspend() { w.timer.Stop() } // while nobody waits for the server

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// attemptFailure is what an attempt's error means when no answer explains it.
// The end of the whole transfer is not the attempt's failure.
func attemptFailure(outer, attempt context.Context, err error) *failure {
	if outer.Err() != nil {
		return permanent(context.Cause(outer))
	}
	if cause := context.Cause(attempt); errors.Is(cause, ErrStalled) {
		return passing(cause)
	}
	return passing(withoutURL(err))
}

// shared is a signed request that many ranges use. When several find at once
// that it has run out, one of them gets the next.
type shared struct {
	sign func(ctx context.Context, renew bool) (Request, error)

	mu         sync.Mutex
	generation int
	request    Request
}

// get returns the request if it is younger than the generation that failed the
// caller, 0 at first, else a new one.
func (s *shared) get(ctx context.Context, failed int) (Request, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation <= failed {
		request, err := s.sign(ctx, s.generation > 0)
		if err != nil {
			return Request{}, 0, fmt.Errorf("presign: %w", err)
		}
		s.request = request
		s.generation++
	}
	return s.request, s.generation, nil
}
