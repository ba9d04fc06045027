package doctor

import (
	"context"
	"time"
)

// Clocks that differ by less than tolerable do no harm. From unbearable on,
// Vault refuses id_tokens as not valid yet, whose leeway for that is a minute
// (vault-plugin-auth-jwt, clock_skew_leeway).
const (
	tolerable  = 10 * time.Second
	unbearable = time.Minute
)

// reading is what another's clock said, and ours before it was asked and after
// it had answered.
type reading struct{ theirs, asked, answered time.Time }

// skew is how far the other's clock is ahead, as far as that is certain: it is
// read to the second only, at some moment between the question and the answer.
func (r reading) skew() time.Duration {
	switch {
	case r.theirs.After(r.answered):
		return r.theirs.Sub(r.answered)
	case r.theirs.Add(time.Second).Before(r.asked):
		return -r.asked.Sub(r.theirs.Add(time.Second))
	}
	return 0
}

func (r reading) judge() finding {
	if r.theirs.IsZero() {
		return warn("", "its answers don't say what time it is")
	}
	skew := r.skew().Round(time.Second)
	far, way := skew, "ahead of"
	if skew < 0 {
		far, way = -skew, "behind"
	}
	const hint = "compare both machines' clocks: does NTP run?"
	switch {
	case far < tolerable:
		return fine("as ours, within %s", tolerable)
	case far < unbearable:
		return warn(hint, "%s %s ours", far, way)
	}
	return fail(hint, "%s %s ours: tokens are refused as too young or too old", far, way)
}

// clockOf judges a clock that an earlier check has read.
func clockOf(whose, from string, r *reading) check {
	return check{name: "clock of " + whose, needs: []string{from}, run: func(context.Context) finding { return r.judge() }}
}
