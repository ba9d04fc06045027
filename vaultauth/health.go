package vaultauth

import (
	"context"
	"encoding/json"
	"time"

	"podlane/internal/redact"
)

// Health is what Vault says about itself to anybody.
type Health struct {
	Version     string
	Initialized bool
	Sealed      bool
	Standby     bool
	// Time is Vault's clock, to the second.
	Time time.Time
}

// Health asks Vault how it is, once and without a token.
func (c *Client) Health(ctx context.Context) (Health, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	h, err := c.as(redact.Secret{}).Sys().HealthWithContext(ctx)
	if err != nil {
		e, ok := asRefusal(err)
		if !ok {
			e = failure(err)
		}
		e.Op = "ask vault how it is"
		return Health{}, e
	}
	return Health{
		Version: h.Version, Initialized: h.Initialized, Sealed: h.Sealed, Standby: h.Standby || h.PerformanceStandby,
		Time: time.Unix(h.ServerTimeUTC, 0),
	}, nil
}

// Can asks which of the paths (without /v1/) the session's token may use, and
// for what: Vault's words such as read, update or deny. It needs the default
// policy, or one that allows sys/capabilities-self.
func (s *Session) Can(ctx context.Context, paths ...string) (map[string][]string, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	ans, err := s.with(ctx, request{
		op: "ask vault what role " + s.role + " may do", path: "sys/capabilities-self",
		body: map[string]any{"paths": paths},
	})
	if err != nil {
		return nil, err
	}
	var data map[string]json.RawMessage
	if err := json.Unmarshal(ans.Data, &data); err != nil {
		return nil, misconfigured("ask vault what role "+s.role+" may do", "the answer has no capabilities")
	}
	can := make(map[string][]string, len(paths))
	for _, path := range paths {
		var words []string
		if err := json.Unmarshal(data[path], &words); err == nil {
			can[path] = words
		}
	}
	return can, nil
}
