package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"podlane/executor/pod"
	"podlane/internal/redact"
	"podlane/vaultauth"
)

// kubeTokens keeps a token for the API server that has life left in it: it gets
// a new one at about 70 % of the present one's life, so that Vault may be away
// for the rest.
type kubeTokens struct {
	// fetch gets a token: one that an earlier stage has left if it is not due
	// for renewal, unless anew is set.
	fetch func(ctx context.Context, anew bool) (vaultauth.KubeToken, error)
	warnf func(format string, args ...any)

	// turn is held by whoever looks at current: fetching takes time, and ends
	// with the caller's context.
	turn    chan struct{}
	current vaultauth.KubeToken
	// tried is when the present token could not be renewed.
	tried  time.Time
	warned bool
}

var _ pod.TokenSource = (*kubeTokens)(nil)

// usable tells whether a request can still be made with a token.
func usable(t vaultauth.KubeToken, now time.Time) bool {
	return !t.Token.IsZero() && t.Expires.Sub(now) > min(usableMargin, t.Expires.Sub(t.Issued)/20)
}

const (
	// usableMargin is for clocks that differ and requests that take time.
	usableMargin = 10 * time.Second
	// renewLimit bounds an attempt to renew a token that is still good, and
	// renewPause lies between two.
	renewLimit = 5 * time.Second
	renewPause = 10 * time.Second
)

func newKubeTokens(fetch func(ctx context.Context, anew bool) (vaultauth.KubeToken, error), warnf func(string, ...any)) *kubeTokens {
	return &kubeTokens{fetch: fetch, warnf: warnf, turn: make(chan struct{}, 1)}
}

// Token implements pod.TokenSource.
func (k *kubeTokens) Token(ctx context.Context) (redact.Secret, error) {
	if err := k.take(ctx); err != nil {
		return redact.Secret{}, err
	}
	defer k.give()
	now := time.Now()
	switch {
	case !usable(k.current, now):
		return k.get(ctx, false)
	case now.After(k.current.Refresh) && now.Sub(k.tried) > renewPause:
		k.tried = now
		k.renew(ctx)
	}
	return k.current.Token, nil
}

// Replace implements pod.TokenSource.
func (k *kubeTokens) Replace(ctx context.Context, refused redact.Secret) (redact.Secret, error) {
	if err := k.take(ctx); err != nil {
		return redact.Secret{}, err
	}
	defer k.give()
	if !k.current.Token.Equal(refused) {
		return k.current.Token, nil
	}
	return k.get(ctx, true)
}

// keepFresh renews the token while a stage is under way, until ctx ends:
// requests come only when a stream breaks, and Vault may be away just then.
func (k *kubeTokens) keepFresh(ctx context.Context) {
	for {
		if err := k.take(ctx); err != nil {
			return
		}
		wait := time.Until(k.current.Refresh)
		if k.current.Token.IsZero() {
			wait = renewPause // nobody has asked for one yet
		} else if wait <= 0 {
			k.tried = time.Now()
			k.renew(ctx)
			wait = max(time.Until(k.current.Refresh), min(renewPause, k.current.Expires.Sub(k.current.Issued)/10))
		}
		k.give()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// renew replaces a token that is still good, if that can be done.
func (k *kubeTokens) renew(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	if _, err := k.get(ctx, false); err != nil && !errors.Is(err, context.Canceled) && !k.warned {
		k.warned = true
		k.warnf("the token for kubernetes is good until %s and cannot be renewed yet: %v", k.current.Expires.Format(time.TimeOnly), err)
	}
}

// get fetches a token. The turn is the caller's.
func (k *kubeTokens) get(ctx context.Context, anew bool) (redact.Secret, error) {
	token, err := k.fetch(ctx, anew)
	if err != nil {
		return redact.Secret{}, fmt.Errorf("get a token for kubernetes: %w", err)
	}
	k.current, k.warned = token, false
	return token.Token, nil
}

func (k *kubeTokens) take(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *kubeTokens) give() { <-k.turn }
