package vaultauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/vault/api"

	"podlane/internal/redact"
)

// request is one need for an answer of Vault.
type request struct {
	op    string // for errors: "log in to vault with role podlane"
	token redact.Secret
	path  string // after /v1/
	// body makes it a write. Reads are for what has no effect: a broken
	// connection makes Go's HTTP client repeat them on its own.
	body map[string]any
	// leases is set if the answer is a lease: its loss is then an error at once,
	// since asking again would make a second one.
	leases bool
}

// answer is what Vault's answers have in common. The SDK's own type lacks
// token_type and num_uses.
type answer struct {
	LeaseID       string          `json:"lease_id"`
	LeaseDuration int64           `json:"lease_duration"`
	Data          json.RawMessage `json:"data"`
	Auth          *struct {
		ClientToken   string          `json:"client_token"`
		Accessor      string          `json:"accessor"`
		Policies      []string        `json:"policies"`
		LeaseDuration int64           `json:"lease_duration"`
		Renewable     bool            `json:"renewable"`
		TokenType     string          `json:"token_type"`
		NumUses       int             `json:"num_uses"`
		MFA           json.RawMessage `json:"mfa_requirement"`
	} `json:"auth"`
}

// do sends a request until it is answered, within the retry budget. Its errors
// are all of type *Error.
func (c *Client) do(ctx context.Context, r request) (*answer, error) {
	if err := checkPath(r.path); err != nil {
		return nil, &Error{Kind: Misconfigured, Op: r.op, Detail: err.Error(), Err: err}
	}
	sdk := c.as(r.token)
	var last *Error
	ans, err := backoff.Retry(ctx, func() (*answer, error) {
		ans, wait, e := c.try(ctx, sdk, r)
		if e == nil {
			return ans, nil
		}
		if last != nil && e.Status == 0 && ctx.Err() != nil {
			// Cut off by the caller: what Vault said before tells more.
			said := *last
			said.lost = said.lost || e.lost
			e = &said
		}
		e.Op, e.Detail, last = r.op, c.redact.String(e.Detail), e
		switch {
		case !e.retry, e.lost && r.leases, ctx.Err() != nil:
			return nil, backoff.Permanent(e)
		case wait > 0:
			return nil, errors.Join(e, &backoff.RetryAfterError{Duration: wait})
		}
		return nil, e
	}, c.patience(func() error { return last })...)
	if err == nil {
		return ans, nil
	}
	if ctx.Err() != nil {
		return nil, &Error{Kind: Unavailable, Op: r.op, Detail: last.Detail + ", not waited for any longer", Hint: last.Hint, Err: ctx.Err(), lost: last.lost}
	}
	return nil, last
}

// patience is how requests are repeated: quickly at first, since most outages
// are a connection that was cut, and spread over several seconds later, for the
// thousand processes of a busy runner.
func (c *Client) patience(reason func() error) []backoff.RetryOption {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 200 * time.Millisecond
	pause.MaxInterval = 5 * time.Second
	said := false
	return []backoff.RetryOption{
		backoff.WithBackOff(pause),
		backoff.WithMaxElapsedTime(max(c.config.RetryBudget, time.Nanosecond)), // zero would mean forever
		backoff.WithNotify(func(error, time.Duration) {
			if !said {
				c.notify("%v, trying again for up to %s", reason(), c.config.RetryBudget)
			}
			said = true
		}),
	}
}

// try sends a request once. The second result is how long Vault asks us to
// wait.
func (c *Client) try(ctx context.Context, sdk *api.Client, r request) (*answer, time.Duration, *Error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	var (
		resp *api.Response
		err  error
	)
	if r.body == nil {
		resp, err = sdk.Logical().ReadRawWithContext(ctx, r.path)
	} else {
		var body []byte
		if body, err = json.Marshal(r.body); err != nil {
			return nil, 0, &Error{Detail: fmt.Sprintf("encode the request: %v", err), Err: err}
		}
		resp, err = sdk.Logical().WriteRawWithContext(ctx, r.path, body)
	}
	if resp != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		if e, ok := asRefusal(err); ok {
			return nil, retryAfter(resp.Header), e
		}
		return nil, 0, failure(err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, 0, refusal(resp.StatusCode, nil, true)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e := failure(err)
		e.Detail, e.lost = "the answer broke off: "+e.Detail, true
		return nil, 0, e
	}
	var ans answer
	if len(body) == 0 {
		return &ans, 0, nil
	}
	if err := json.Unmarshal(body, &ans); err != nil {
		// Not err's own words: they quote the body, which is secret.
		return nil, 0, &Error{Kind: Unavailable, Status: resp.StatusCode, Detail: "the answer is not what Vault answers", retry: true, lost: true}
	}
	return &ans, 0, nil
}

// retryAfter reads how long to wait, and adds up to a quarter so that not
// everybody comes back at once.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(strings.TrimSpace(h.Get("Retry-After")))
	if err != nil || seconds < 0 || seconds > 24*60*60 {
		return 0
	}
	wait := max(time.Duration(seconds)*time.Second, 100*time.Millisecond)
	return wait + rand.N(wait/4) //nolint:gosec // spreads load, guards nothing
}

// checkPath refuses paths that lead elsewhere than they look.
func checkPath(path string) error {
	for element := range strings.SplitSeq(path, "/") {
		if element == "" || element == "." || element == ".." || strings.ContainsFunc(element, func(r rune) bool {
			return r <= ' ' || r == 0x7f || strings.ContainsRune(`?#%\`, r)
		}) {
			return fmt.Errorf("%q is not a path in Vault: found %q between its slashes", path, element)
		}
	}
	return nil
}
