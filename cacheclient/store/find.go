package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"podlane/cacheclient/key"
)

// Hit is a cache that was found.
type Hit struct {
	Object    Object // with its metadata
	Candidate key.Candidate
}

// Find returns the best of the candidates that is there. If there is none, the
// error is ErrNotFound, and notes say what couldn't be looked up for lack of
// permission. Any other error means that nobody knows.
func (s *Store) Find(ctx context.Context, space key.Space, candidates []key.Candidate) (hit Hit, notes []string, err error) {
	primaries := s.headPrimaries(ctx, space, candidates)
	for i, c := range candidates {
		var o Object
		var err error
		if c.Prefix {
			o, err = s.newestMatch(ctx, space, c)
		} else if r, ok := primaries[i]; ok {
			o, err = r.object, r.err
		} else {
			o, err = s.Head(ctx, space.Object(c.Scope, c.Key))
		}
		switch {
		case err == nil:
			return Hit{Object: o, Candidate: c}, notes, nil
		case errors.Is(err, ErrDenied):
			notes = append(notes, fmt.Sprintf("%s can't be looked up in the %s caches: %v", c, c.Scope, err))
		case !errors.Is(err, ErrNotFound):
			return Hit{}, notes, err
		case NotListed(err):
			notes = append(notes, fmt.Sprintf("%s is not in the %s caches, or may not be read there", c, c.Scope))
		}
	}
	return Hit{}, notes, ErrNotFound
}

type headed struct {
	object Object
	err    error
}

// headPrimaries looks the job's own key up in all its scopes at once: that is
// almost always all there is to find, and each answer takes a round trip.
func (s *Store) headPrimaries(ctx context.Context, space key.Space, candidates []key.Candidate) map[int]headed {
	var mu sync.Mutex
	var wg sync.WaitGroup
	found := map[int]headed{}
	for i, c := range candidates {
		if !c.Primary || c.Prefix {
			continue
		}
		wg.Go(func() {
			o, err := s.Head(ctx, space.Object(c.Scope, c.Key))
			mu.Lock()
			defer mu.Unlock()
			found[i] = headed{o, err}
		})
	}
	wg.Wait()
	return found
}

// newestMatch finds a fallback's entry and its metadata.
func (s *Store) newestMatch(ctx context.Context, space key.Space, c key.Candidate) (Object, error) {
	newest, err := s.Newest(ctx, space.Objects(c), func(o Object) bool {
		e, err := space.Parse(o.Name)
		return err == nil && c.Matches(e)
	})
	if err != nil {
		return Object{}, err
	}
	return s.Head(ctx, newest.Name)
}
