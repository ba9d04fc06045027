package key

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Scope is a level of trust. Entries of one scope are written with credentials
// that cannot write the other's.
type Scope string

// The scopes, as they stand in object names and in the policies of Vault and
// of the bucket.
const (
	Protected   Scope = "protected"
	Unprotected Scope = "unprotected"
)

// ScopeOf returns the scope of a job on a protected ref, or on another. The
// caller takes that from a fact that the job can't influence.
func ScopeOf(protectedRef bool) Scope {
	if protectedRef {
		return Protected
	}
	return Unprotected
}

// Reads returns the scopes that a job of scope s may read, in the order in
// which they are asked: its own, then the more trusted one. A protected job
// never reads what an unprotected one may have written.
func (s Scope) Reads() []Scope {
	if s == Protected {
		return []Scope{Protected}
	}
	return []Scope{s, Protected}
}

// Instance returns what stands for a GitLab instance in object names: the first
// 8 hex digits of the SHA-256 of its id, which is the instance's UUID if GitLab
// sends one (job_info.instance_uuid) and its host otherwise. Policies are
// written per instance, and `printf %s ID | sha256sum | cut -c1-8` computes it.
// Pods carry the same digits in their label podlane/instance.
func Instance(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:4])
}

// Space is where the entries of one project lie.
type Space struct {
	prefix   string
	instance string
	project  int64
}

// maxPrefix leaves room in S3's 1,024 bytes for all that follows the prefix.
const maxPrefix = 512

// NewSpace returns the space of a project. prefix is the part of the bucket
// that podlane may use, "" for all of it; instance is what [Instance] returned.
func NewSpace(prefix, instance string, project int64) (Space, error) {
	prefix = strings.Trim(prefix, "/")
	switch {
	case prefix != "" && (path.Clean("/"+prefix) != "/"+prefix || strings.ContainsAny(prefix, "\\*?\x00")):
		return Space{}, fmt.Errorf("prefix %q: want names separated by single slashes, without dots, backslashes and wildcards", prefix)
	case len(prefix) > maxPrefix:
		return Space{}, fmt.Errorf("prefix of %d bytes: at most %d fit", len(prefix), maxPrefix)
	case instance == "" || !isName(instance):
		return Space{}, fmt.Errorf("instance %q: want what stands for the instance in object names, letters and digits", instance)
	case project <= 0:
		return Space{}, fmt.Errorf("project id %d: want a positive number", project)
	}
	return Space{prefix: prefix, instance: instance, project: project}, nil
}

func isName(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) {
			return false
		}
	}
	return true
}

// Dir returns what all object names of a scope start with; it ends in a slash.
func (s Space) Dir(scope Scope) string {
	return path.Join(s.prefix, s.instance, strconv.FormatInt(s.project, 10), string(scope)) + "/"
}

// Paths stands for what a cache is made of: caches of other paths under the
// same key are other entries. It is 16 hex digits.
type Paths string

// PathsOf returns what stands for cleaned paths in object names, in whatever
// order they are written.
func PathsOf(paths []string, untracked bool) Paths {
	h := sha256.New()
	for _, p := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		h.Write(append([]byte(p), 0))
	}
	if untracked {
		h.Write([]byte{0})
	}
	return Paths(hex.EncodeToString(h.Sum(nil)[:pathsDigits/2]))
}

const pathsDigits = 16

// Object returns the object name of a key's entry with some paths:
//
//	<prefix>/<instance>/<project_id>/<scope>/<readable key>.<SHA-256 of the key>.<digest of the paths>
//
// The digests make the name unique. The readable part is there so that a prefix
// of keys can be listed with ListObjectsV2 alone, without a request an entry
// and without an index that could be out of step; it holds no slash and nothing
// else that a job could leave the directory with.
func (s Space) Object(scope Scope, key string, paths Paths) string {
	return s.Dir(scope) + name(key) + string(paths)
}

// name is what the names of all entries of a key start with.
func name(key string) string {
	sum := sha256.Sum256([]byte(key))
	return readable(key) + "." + hex.EncodeToString(sum[:]) + "."
}

// Parse takes the name of an object of this space apart.
func (s Space) Parse(object string) (Entry, error) { return ParseObject(s.prefix, object) }

// Entry is what an object's name says.
type Entry struct {
	Instance string
	Project  int64
	Scope    Scope
	// Readable is the key if it is short, else its start and its end with
	// "…" in the middle.
	Readable string
	// Whole says that Readable is the key.
	Whole bool
	// Paths stands for the cache's paths.
	Paths Paths

	escaped string
	name    string // with the key's digest, but without Paths
}

var errNotEntry = errors.New("not the name of a cache entry")

// ParseObject takes an object's name apart. prefix is the one given to
// NewSpace.
func ParseObject(prefix, object string) (Entry, error) {
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		rest, ok := strings.CutPrefix(object, prefix+"/")
		if !ok {
			return Entry{}, fmt.Errorf("%s: %w below %s", object, errNotEntry, prefix)
		}
		object = rest
	}
	parts := strings.Split(object, "/")
	if len(parts) != 4 {
		return Entry{}, fmt.Errorf("%s: %w", object, errNotEntry)
	}
	project, err := strconv.ParseInt(parts[1], 10, 64)
	scope := Scope(parts[2])
	if err != nil || (scope != Protected && scope != Unprotected) {
		return Entry{}, fmt.Errorf("%s: %w", object, errNotEntry)
	}
	e := Entry{Instance: parts[0], Project: project, Scope: scope}
	end := len(parts[3]) - pathsDigits
	dot := end - 1 - 2*sha256.Size - 1
	if dot < 1 || parts[3][dot] != '.' || parts[3][end-1] != '.' || !isName(parts[3][end:]) {
		return Entry{}, fmt.Errorf("%s: %w", object, errNotEntry)
	}
	e.escaped, e.name, e.Paths = parts[3][:dot], parts[3][:end], Paths(parts[3][end:])
	if e.Readable, e.Whole, err = unescape(e.escaped); err != nil {
		return Entry{}, fmt.Errorf("%s: %w: %w", object, errNotEntry, err)
	}
	// What claims to be the whole key must be the one that the digest is of.
	if e.Whole && name(e.Readable) != e.name {
		return Entry{}, fmt.Errorf("%s: %w: the digest is another key's", object, errNotEntry)
	}
	return e, nil
}
