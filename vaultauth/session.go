package vaultauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"podlane/internal/redact"
)

// minIDToken is how much life an id_token must have left to be preferred for a
// login: what Vault's clock and a few retries may take.
const minIDToken = 30 * time.Second

// Options say who a [Session] is for.
type Options struct {
	Client *Client
	// Role is the JWT role to log in with.
	Role string
	// IDToken is the job's; it may have ended.
	IDToken redact.Secret
	// Store carries tokens from one process of a job to the next; nil means that
	// each logs in on its own.
	Store *Store
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Session is one Vault token for one JWT role. Whenever a token is needed, it
// takes the first that there is of
//
//  1. the token at hand or in the store, with most of its life left,
//  2. a login, if the id_token lives for another 30 seconds,
//  3. the token at hand, renewed, or else as it is,
//  4. a login with the last of the id_token.
//
// It is safe for concurrent use; requests wait for each other.
type Session struct {
	client  *Client
	role    string
	idToken redact.Secret
	claims  IDToken
	badID   error
	store   *Store
	now     func() time.Time

	own    *token        // of a person who has logged in: see OwnToken
	turn   chan struct{} // held while a request is under way
	loaded bool
	state  roleState
}

// Open starts a session and sends nothing.
func Open(o Options) *Session {
	s := &Session{
		client: o.Client, role: o.Role, idToken: o.IDToken, store: o.Store, now: o.Now,
		turn: make(chan struct{}, 1),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if !o.IDToken.IsZero() {
		s.client.redact.Add(o.IDToken)
		s.claims, s.badID = DecodeIDToken(o.IDToken)
	}
	return s
}

// OwnToken is a session of a person who has logged in to Vault: their token is
// used as it is, and neither renewed nor replaced nor revoked.
func (c *Client) OwnToken(t redact.Secret) *Session {
	c.redact.Add(t)
	return &Session{client: c, own: &token{Secret: t}, now: time.Now, turn: make(chan struct{}, 1)}
}

// TokenInfo is what may be told about a Vault token.
type TokenInfo struct {
	Accessor string
	Policies []string
	Expires  time.Time
}

// Login gets a token, if there is none, and says what it is.
func (s *Session) Login(ctx context.Context) (TokenInfo, error) {
	if err := s.lock(ctx); err != nil {
		return TokenInfo{}, err
	}
	defer s.unlock()
	t, _, err := s.authorised(ctx)
	if err != nil {
		return TokenInfo{}, err
	}
	return TokenInfo{Accessor: t.Accessor, Policies: slices.Clone(t.Policies), Expires: t.Expires}, nil
}

// Revoke ends the session's tokens and whatever was made with them. Neither the
// id_token nor the store's key has to live for it: a token revokes itself.
func (s *Session) Revoke(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	s.load()
	err := s.client.revokeAll(ctx, s.state.tokens(s.now()))
	if err == nil {
		s.state = roleState{}
		s.save()
	}
	return err
}

// RevokeAll ends every token in a store, of whatever role, and removes the
// store.
func (c *Client) RevokeAll(ctx context.Context, store *Store, now time.Time) error {
	var tokens []token
	for _, role := range store.load().Roles {
		tokens = append(tokens, role.tokens(now)...)
	}
	return errors.Join(c.revokeAll(ctx, tokens), store.Remove())
}

func (c *Client) revokeAll(ctx context.Context, tokens []token) error {
	var failed error
	for _, t := range tokens {
		if err := c.revoke(ctx, t.Secret); err != nil {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

func (s *Session) lock(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &Error{Kind: Unavailable, Op: "use the vault token of role " + s.role, Detail: "another request is under way", Err: ctx.Err()}
	}
}

func (s *Session) unlock() { <-s.turn }

func (s *Session) load() {
	if s.loaded || s.store == nil {
		return
	}
	s.loaded = true
	s.state = s.store.load().Roles[s.role]
	for _, t := range s.state.tokens(s.now()) {
		s.client.redact.Add(t.Secret)
	}
	for _, kube := range s.state.Kube {
		s.client.redact.Add(kube.Token)
	}
}

func (s *Session) save() {
	if s.store != nil {
		s.store.update(s.role, s.state, s.now())
	}
}

// adopt makes t the session's token. The one before may still hold leases that
// are in use: it is kept to be revoked in the end.
func (s *Session) adopt(t *token) {
	if old := s.state.Token; old != nil && (t == nil || !old.Secret.Equal(t.Secret)) {
		s.state.Former = append(s.state.Former, *old)
	}
	s.state.Token = t
	s.save()
}

// canLogin tells whether the id_token lives for another d.
func (s *Session) canLogin(d time.Duration) bool {
	return !s.idToken.IsZero() && s.badID == nil &&
		(s.claims.Expires.IsZero() || s.claims.Expires.Sub(s.now()) > d)
}

// authorised returns a token to be used now, and whether this call got it from
// Vault. The order is Session's.
func (s *Session) authorised(ctx context.Context) (*token, bool, error) {
	if s.own != nil {
		return s.own, false, nil
	}
	s.load()
	if t := s.state.Token; t != nil && t.fresh(s.now()) {
		return t, false, nil
	}
	var refused error
	if s.canLogin(minIDToken) {
		t, err := s.login(ctx)
		if err == nil || KindOf(err) == Unavailable {
			return t, true, err
		}
		refused = err
	}
	if t := s.state.Token; t != nil && t.alive(s.now()) {
		if t.Renewable {
			renewed, err := s.client.renew(ctx, t, s.role, s.now)
			if err == nil {
				s.adopt(renewed)
				return renewed, true, nil
			}
			if e := new(Error); errors.As(err, &e) && e.Status == http.StatusForbidden {
				s.adopt(nil) // revoked, or its role is gone
			}
		}
		if t := s.state.Token; t != nil && t.alive(s.now()) {
			return t, false, nil
		}
	}
	if refused != nil {
		return nil, false, refused
	}
	if s.canLogin(0) {
		t, err := s.login(ctx)
		return t, true, err
	}
	return nil, false, s.ended()
}

func (s *Session) login(ctx context.Context) (*token, error) {
	t, err := s.client.login(ctx, s.role, s.idToken, s.now)
	if err != nil {
		return nil, err
	}
	s.adopt(t)
	return t, nil
}

// ended says which token ended when.
func (s *Session) ended() error {
	e := &Error{Kind: Expired, Op: "log in to vault with role " + s.role}
	switch {
	case s.idToken.IsZero():
		e.Kind, e.Detail, e.Hint = Misconfigured, "the job has no id_token", "declare one under id_tokens in .gitlab-ci.yml"
		return e
	case s.badID != nil:
		e.Kind, e.Detail, e.Err = Misconfigured, s.badID.Error(), s.badID
		return e
	}
	var ends []string
	ends = append(ends, "the id_token ended at "+clock(s.claims.Expires))
	last := s.state.Token
	if n := len(s.state.Former); last == nil && n > 0 {
		last = &s.state.Former[n-1]
	}
	if last != nil {
		how := "ended"
		if last.alive(s.now()) {
			how = "was revoked; it would have ended"
		}
		ends = append(ends, "the Vault token "+how+" at "+clock(last.Expires))
		e.Hint = "token_max_ttl of the role must be as long as the longest job"
	}
	e.Detail = strings.Join(ends, " and ")
	return e
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }

// with sends a request with the session's token. A token that Vault no longer
// takes is replaced by a login, once; a new one only if it has ended meanwhile. Where the answer with a lease was lost,
// the token is revoked, the lease with it, before another login and request:
// there are never two leases for one need.
func (s *Session) with(ctx context.Context, r request) (*answer, error) {
	replaced := false
	var last error
	ans, err := backoff.Retry(ctx, func() (*answer, error) {
		for {
			t, isNew, err := s.authorised(ctx)
			if err != nil {
				return nil, backoff.Permanent(err)
			}
			r.token = t.Secret
			ans, err := s.client.do(ctx, r)
			var e *Error
			switch {
			case err == nil:
				return ans, nil
			case !errors.As(err, &e):
				return nil, backoff.Permanent(err)
			case s.own != nil:
				if e.Status == http.StatusForbidden {
					e.Hint = "your token's policies do not allow it, or it has ended: vault login"
				}
				return nil, backoff.Permanent(err)
			case e.Status == http.StatusForbidden && !replaced && (!isNew || !t.alive(s.now())) && s.canLogin(0):
				replaced = true
				s.adopt(nil)
				continue
			case !e.lost || !r.leases || ctx.Err() != nil:
				return nil, backoff.Permanent(err)
			case !s.canLogin(0):
				e.Hint = "not asked for again: that might make a second lease, and the id_token has ended at " + clock(s.claims.Expires)
				return nil, backoff.Permanent(err)
			}
			if err := s.client.revoke(ctx, t.Secret); err != nil {
				return nil, backoff.Permanent(fmt.Errorf("%w; then %w", e, err))
			}
			s.state = roleState{Former: s.state.Former}
			s.save()
			last = err
			return nil, err
		}
	}, s.client.patience(func() error { return last })...)
	if err != nil && ctx.Err() != nil && KindOf(err) == Unknown {
		err = &Error{Kind: Unavailable, Op: r.op, Detail: "not waited for any longer", Err: err}
	}
	return ans, err
}
