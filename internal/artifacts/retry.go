package artifacts

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// attempts is how often a transfer is tried, as the runner does.
const attempts = 3

// transient marks an error that another attempt may mend: a broken connection
// or a server's 5xx.
type transient struct{ error }

func (t transient) Unwrap() error { return t.error }

// retry calls try until it succeeds, fails for good, was called limit times or
// ctx ends. The wait doubles from delay on, and is anything from half to one
// and a half of that: the jobs of one pipeline fail together and should not
// come back together.
func retry(ctx context.Context, limit int, delay time.Duration, log lines, try func(attempt int) error) error {
	for attempt := 1; ; attempt++ {
		err := try(attempt)
		var passing transient
		if err == nil || !errors.As(err, &passing) || attempt >= limit || ctx.Err() != nil {
			return err
		}
		wait := delay/2 + rand.N(delay+1) //nolint:gosec // G404: nobody gains by guessing a wait
		log.warn("%v: attempt %d of %d, the next in %v", err, attempt, limit, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
		delay *= 2
	}
}
