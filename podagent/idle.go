package podagent

import "time"

// idleClock tells when a file has not been touched for a while. It compares
// the file's time with itself alone and measures by the monotonic clock, so
// that a step of the node's clock ends no pod.
type idleClock struct {
	limit   time.Duration
	touched time.Time
	since   time.Time // when touched was first seen
}

// abandoned is to be asked a few times within the limit.
func (c *idleClock) abandoned(now, touched time.Time) bool {
	if c.since.IsZero() || !touched.Equal(c.touched) {
		c.touched, c.since = touched, now
	}
	return now.Sub(c.since) > c.limit
}
