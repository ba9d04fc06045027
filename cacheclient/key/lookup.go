package key

import (
	"fmt"
	"regexp"
	"strings"
)

// Want is one key or, if it came from a fallback that ends in "*", all keys that
// start alike.
type Want struct {
	// Key is the whole key, or what the keys start with.
	Key string
	// Prefix says that Key is only a start. Of the entries that match, the one
	// that was written or refreshed last is meant.
	Prefix bool
	// Counter is what the keys end in: "-<n>" if the project's caches were
	// cleared n times, because GitLab puts that behind the "*".
	Counter string
}

// String is the want as its author wrote it, but cleaned.
func (w Want) String() string {
	if w.Prefix {
		return w.Key + "*" + w.Counter
	}
	return w.Key
}

var wildcard = regexp.MustCompile(`^(.*)\*(-[0-9]+)?$`)

// Fallback reads a fallback key, cleaned as [Clean] does it. "node-*" means all
// keys that start with node-.
func Fallback(raw string) (Want, error) {
	key, err := Clean(raw)
	if err != nil {
		return Want{}, err
	}
	m := wildcard.FindStringSubmatch(key)
	if m == nil {
		return Want{Key: key}, nil
	}
	w := Want{Key: m[1], Prefix: true, Counter: m[2]}
	switch n := len(escaped(w.Key)); {
	case w.Key == "":
		return Want{}, fmt.Errorf("%q: every key starts with nothing: want a prefix before the *", raw)
	case n > maxHead:
		return Want{}, fmt.Errorf("%q: a prefix of %d bytes can't be looked up: at most %d", raw, n, maxHead)
	}
	return w, nil
}

// Matches reports whether an entry is one of those wanted. A counter that would
// belong to other keys of the same start is not looked for.
func (w Want) Matches(e Entry) bool {
	if !w.Prefix {
		return e.name == name(w.Key)
	}
	return strings.HasPrefix(e.escaped, escaped(w.Key)) && strings.HasSuffix(e.escaped, escaped(w.Counter))
}

// Candidate is one place to look in, or several of which the best is meant.
type Candidate struct {
	Want
	Scope Scope
	// Primary says that this is the job's own key and not a fallback.
	Primary bool
	// Paths are the job's own.
	Paths Paths
	// Any takes entries with other paths, too, but rather one with these.
	Any bool
}

// One reports whether only one object can be meant.
func (c Candidate) One() bool { return !c.Prefix && !c.Any }

// Candidates returns where to look for a job's cache, best first: each key in
// turn, in each scope that the job may read, and where no scope has an entry
// with the job's own paths, one with others. fallbacks come after key.
func Candidates(own Scope, key string, paths Paths, fallbacks []Want) []Candidate {
	wants := append([]Want{{Key: key}}, fallbacks...)
	var out []Candidate
	for i, want := range wants {
		for _, others := range []bool{false, true} {
			if want.Prefix && !others {
				continue // one list has both
			}
			for _, scope := range own.Reads() {
				out = append(out, Candidate{Want: want, Scope: scope, Primary: i == 0, Paths: paths, Any: others})
			}
		}
	}
	return out
}

// Objects returns the object's name, or what the names of all objects start
// with if there may be several.
func (s Space) Objects(c Candidate) string {
	switch {
	case c.Prefix:
		return s.Dir(c.Scope) + escaped(c.Key)
	case c.Any:
		return s.Dir(c.Scope) + name(c.Key)
	default:
		return s.Object(c.Scope, c.Key, c.Paths)
	}
}
