package pod

import (
	"context"
	"errors"
	"strings"
	"time"
)

// startingError is a refusal by an API server that has just started: it answers
// some seconds before it has read who may do what.
type startingError struct{ error }

// settled runs op, and once more if it was refused by an API server that may
// have become ready meanwhile. What one refuses that is not ready may be tried
// again.
func (c *Client) settled(ctx context.Context, op func(context.Context) error) error {
	err := op(ctx)
	switch {
	case !isDenial(err):
		return err
	case !c.ready(ctx):
		return &startingError{err}
	}
	return op(ctx)
}

// isDenial knows the answer 403, also in the text that the dialers of exec make
// of it.
func isDenial(err error) bool {
	var starting *startingError
	return err != nil && !errors.As(err, &starting) && strings.Contains(err.Error(), "is forbidden")
}

// readyTimeout bounds the question whether the API server is ready.
const readyTimeout = 5 * time.Second

// ready tells whether the API server knows who may do what. Everybody may ask
// that (kube-apiserver --authorization-always-allow-paths).
func (c *Client) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	_, err := c.rest.Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil
}
