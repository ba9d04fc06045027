package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"podlane/cacheclient/key"
)

// Hit is a cache that was found.
type Hit struct {
	Object    Object // with its metadata
	Candidate key.Candidate
	// Paths stand for the paths that it was saved with.
	Paths key.Paths
}

// OtherPaths reports whether it was saved with other paths than the job's.
func (h Hit) OtherPaths() bool { return h.Paths != h.Candidate.Paths }

// Find returns the best of the candidates that is there and that skip, which may
// be nil, does not refuse by its object's name. If there is none, the error is
// ErrNotFound, and notes say what couldn't be looked up for lack of permission.
// Any other error means that nobody knows.
//
// What differs in its scope only is asked for at once: the job's own key is
// almost always all there is to find, and each answer takes a round trip.
func (s *Store) Find(ctx context.Context, space key.Space, candidates []key.Candidate, skip func(object string) bool) (hit Hit, notes []string, err error) {
	for len(candidates) > 0 {
		n := 1
		for n < len(candidates) && candidates[n].Want == candidates[0].Want && candidates[n].Any == candidates[0].Any {
			n++
		}
		asked := candidates[:n]
		candidates = candidates[n:]
		objects, errs := make([]Object, n), make([]error, n)
		var lookups sync.WaitGroup
		for i, c := range asked {
			lookups.Go(func() { objects[i], errs[i] = s.lookUp(ctx, space, c, skip) })
		}
		lookups.Wait()
		for i, c := range asked {
			switch err := errs[i]; {
			case err == nil:
				e, err := space.Parse(objects[i].Name)
				return Hit{Object: objects[i], Candidate: c, Paths: e.Paths}, notes, err
			case errors.Is(err, ErrDenied):
				// Without the right to list, entries with other paths are nobody's.
				if c.Prefix || !c.Any {
					notes = append(notes, fmt.Sprintf("%s can't be looked up in the %s caches: %v", c, c.Scope, err))
				}
			case !errors.Is(err, ErrNotFound):
				return Hit{}, notes, err
			case NotListed(err):
				notes = append(notes, fmt.Sprintf("%s is not in the %s caches, or may not be read there", c, c.Scope))
			}
		}
	}
	return Hit{}, notes, ErrNotFound
}

// lookUp finds a candidate's entry and its metadata.
func (s *Store) lookUp(ctx context.Context, space key.Space, c key.Candidate, skip func(object string) bool) (Object, error) {
	name := space.Objects(c)
	if !c.One() {
		var err error
		if name, err = s.best(ctx, space, c, skip); err != nil {
			return Object{}, err
		}
	} else if skip != nil && skip(name) {
		return Object{}, absent("look up", name)
	}
	return s.Head(ctx, name)
}

func absent(op, name string) error {
	return &Error{Op: op, Object: name, Kind: ErrNotFound, Status: http.StatusOK}
}

// best lists what a candidate may mean: the newest entry with its paths or, if
// there is none, the newest of all.
func (s *Store) best(ctx context.Context, space key.Space, c key.Candidate, skip func(object string) bool) (string, error) {
	prefix := space.Objects(c)
	var found []Object
	own := false
	for o, err := range s.List(ctx, prefix) {
		if err != nil {
			return "", err
		}
		e, err := space.Parse(o.Name)
		if err != nil || !c.Matches(e) || skip != nil && skip(o.Name) {
			continue
		}
		mine := e.Paths == c.Paths
		if mine && !own {
			own, found = true, nil
		}
		if mine == own {
			found = append(found, o)
		}
	}
	if len(found) == 0 {
		return "", absent("list", prefix)
	}
	return slices.MaxFunc(found, newer).Name, nil
}
