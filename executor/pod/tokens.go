package pod

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/streaming/pkg/httpstream"

	"podlane/internal/redact"
)

// TokenSource gives the tokens that requests to the API server carry. It must
// be safe for concurrent use.
//
// A token counts when a request is made: an exec or a watch that is open goes
// on after its token has expired.
type TokenSource interface {
	// Token returns a token with life left in it.
	Token(ctx context.Context) (redact.Secret, error)
	// Replace returns a token other than one that the API server has refused.
	Replace(ctx context.Context, refused redact.Secret) (redact.Secret, error)
}

// TokenError says that there is no token for the API server. It is not worth a
// retry: a source has a budget of its own.
type TokenError struct{ Err error }

// Error is the source's reason.
func (e *TokenError) Error() string { return e.Err.Error() }

// Unwrap returns the source's error.
func (e *TokenError) Unwrap() error { return e.Err }

// withTokens makes every request, also those of WebSocket and SPDY, carry a
// token of the source. A refused token is replaced once.
func withTokens(source TokenSource) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper { return &bearer{source: source, next: next} }
}

type bearer struct {
	source TokenSource
	next   http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := b.source.Token(req.Context())
	if err != nil {
		closeBody(req)
		return nil, &TokenError{err}
	}
	resp, err := b.next.RoundTrip(carrying(req, token))
	if !unauthorized(resp, err) {
		return resp, err
	}
	again, ok := rewound(req)
	if !ok {
		return resp, err
	}
	fresh, replaceErr := b.source.Replace(req.Context(), token)
	if replaceErr != nil {
		closeBody(again)
		if resp != nil {
			resp.Body.Close()
		}
		return nil, &TokenError{fmt.Errorf("the API server refuses the token: %w", replaceErr)}
	}
	if resp != nil {
		resp.Body.Close()
	}
	return b.next.RoundTrip(carrying(again, fresh))
}

// unauthorized sees 401 as an answer, and as what the WebSocket dialer makes
// of it.
func unauthorized(resp *http.Response, err error) bool {
	if err == nil {
		return resp.StatusCode == http.StatusUnauthorized
	}
	var upgrade *httpstream.UpgradeFailureError
	return errors.As(err, &upgrade) && apierrors.IsUnauthorized(upgrade.Cause)
}

// carrying returns a copy of a request with a token: a round tripper must not
// change what it was given, and the WebSocket dialer does.
func carrying(req *http.Request, token redact.Secret) *http.Request {
	copied := req.Clone(req.Context())
	copied.Header.Set("Authorization", "Bearer "+token.Reveal())
	return copied
}

// rewound returns a request whose body can be sent from its start again.
func rewound(req *http.Request) (*http.Request, bool) {
	if req.Body == nil || req.Body == http.NoBody {
		return req, true
	}
	if req.GetBody == nil {
		return nil, false
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, false
	}
	again := req.Clone(req.Context())
	again.Body = body
	return again, true
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
