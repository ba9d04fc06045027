package podagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// # Cache sessions
//
// `podlane-helper cache` moves caches between the pod and S3. One exec stream
// into the helper container carries a session; it serves any number of orders,
// one after the other. Every line is a JSON object, but for the client's first,
// which has CacheMagic and a space in front of it.
//
//	client (podlane run)                 server (podlane-helper cache)
//	PODLANE-CACHE/1 {header}        →
//	                                ←    {"ready":{…}}   once nothing is left of an earlier session
//	{"order":{"id":1,"restore":…}}  →
//	                                ←    {"ask":{"n":1,"read":{}}}
//	{"answer":{"n":1,"url":"…"}}    →
//	                                ←    {"progress":{…}}
//	                                ←    {"done":{"id":1,"restore":{…}}}
//
// The server holds no credential: it asks for a presigned request for the object
// that it reads and for each part that it writes, right before it needs it and
// again when it has run out. Asks may overlap; answers come in any order. Either end writes a
// line at least every AliveInterval.
//
// A session that ends, by the end of stdin, by SIGTERM or by a new session,
// leaves no half a cache: a restore that was under way is taken back. If the
// server was killed, the next session's ready line comes after that was done.
// An order is therefore either done or as good as never given, and can be given
// again.

// CacheVersion is the version of this protocol.
const CacheVersion = 1

// CacheMagic opens the header line of a cache session.
const CacheMagic = "PODLANE-CACHE/1"

// MaxCacheLine bounds a line in bytes: paths of a cache, a list of lockfiles.
const MaxCacheLine = 4 << 20

// CacheHeader opens a session.
type CacheHeader struct {
	// Project is the folder that all paths are relative to: absolute.
	Project string `json:"project"`
	// AsBuildUser makes a helper that runs as root work with the user and group
	// of the build container, so that what it creates belongs to whoever will
	// work with it.
	AsBuildUser bool `json:"as_build_user,omitempty"`
	// CAs are the certificates, in PEM, that the S3 server's is checked
	// against; empty means those of the helper's image.
	CAs string `json:"cas,omitempty"`
}

// CacheCommand is a line from client to server: one of its fields, or none,
// which only says that the client is alive.
type CacheCommand struct {
	Order  *CacheOrder  `json:"order,omitempty"`
	Answer *CacheAnswer `json:"answer,omitempty"`
	// End is the client's last line. The end of stdin means the same, but not
	// every proxy passes that on.
	End bool `json:"end,omitempty"`
}

// CacheReply is a line from server to client: one of its fields, or none.
type CacheReply struct {
	Ready    *CacheReady    `json:"ready,omitempty"`
	Ask      *CacheAsk      `json:"ask,omitempty"`
	Progress *CacheProgress `json:"progress,omitempty"`
	Done     *CacheDone     `json:"done,omitempty"`
	// Error ends the session: one line for people.
	Error string `json:"error,omitempty"`
}

// CacheReady says that orders are taken.
type CacheReady struct {
	// OutOfMemory says what was not enough, if the session before this one ended
	// for lack of memory.
	OutOfMemory string `json:"out_of_memory,omitempty"`
	// Removed is how many paths an earlier session had left, which are gone now.
	Removed int `json:"removed,omitempty"`
}

// CacheOrder is a piece of work: one of the pointers is set.
type CacheOrder struct {
	ID        int             `json:"id"`
	Lockfiles *LockfilesOrder `json:"lockfiles,omitempty"`
	Restore   *RestoreOrder   `json:"restore,omitempty"`
	Save      *SaveOrder      `json:"save,omitempty"`
}

// CacheDone ends an order: an error, or what was asked for.
type CacheDone struct {
	ID int `json:"id"`
	// Error is one line for people. The checkout is as it was before the order.
	Error string `json:"error,omitempty"`
	// Code tells apart the errors that the client treats differently.
	Code      CacheCode        `json:"code,omitempty"`
	Lockfiles *LockfilesResult `json:"lockfiles,omitempty"`
	Restore   *RestoreResult   `json:"restore,omitempty"`
	Save      *SaveResult      `json:"save,omitempty"`
}

// CacheCode is a kind of error.
type CacheCode string

const (
	// CacheFailed is any error without a kind of its own.
	CacheFailed CacheCode = ""
	// CacheGone means that the object is not, or no longer, what the order said.
	CacheGone CacheCode = "gone"
	// CacheDamaged means that the object is no archive, or not a whole one.
	CacheDamaged CacheCode = "damaged"
	// CacheOther means that the archive holds none of the cache's paths, and was
	// not said to.
	CacheOther CacheCode = "other"
	// CacheNoMemory means that the session ended because the container's memory
	// was not enough.
	CacheNoMemory CacheCode = "no memory"
	// CacheInterrupted means that the session ended first.
	CacheInterrupted CacheCode = "interrupted"
)

// LockfilesOrder asks for the digests of files, which are named by globs for
// each variable.
type LockfilesOrder struct {
	Globs map[string][]string `json:"globs"`
}

// LockfilesResult holds the files of each variable, sorted by path; none if no
// file matches.
type LockfilesResult struct {
	Files map[string][]LockfileSum `json:"files"`
	// Notes say what was left out, one line each.
	Notes []string `json:"notes,omitempty"`
}

// LockfileSum is a file and the SHA-256 of its contents in hex.
type LockfileSum struct {
	Path string `json:"path"`
	Sum  string `json:"sum"`
}

// RestoreOrder asks for an archive to be unpacked.
type RestoreOrder struct {
	// Size is the object's, in bytes.
	Size int64 `json:"size"`
	// Digest is what the archive's index must have, in hex; empty if that is
	// not known.
	Digest string `json:"digest,omitempty"`
	// Paths and Untracked are the cache's own: nothing else is created. Where
	// Untracked is set everything in the project is the cache's own.
	Paths     []string `json:"paths,omitempty"`
	Untracked bool     `json:"untracked,omitempty"`
	// Other says that the archive was saved with other paths: what is none of
	// these is left out. Otherwise it makes the archive a damaged one.
	Other  bool        `json:"other,omitempty"`
	Limits CacheLimits `json:"limits"`
}

// CacheLimits bound what is packed and unpacked.
type CacheLimits struct {
	Files int   `json:"files,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
}

// CacheTree says what an archive holds. Times are in milliseconds.
type CacheTree struct {
	Entries int   `json:"entries"`
	Files   int   `json:"files"`
	Bytes   int64 `json:"bytes"`
	// Size is the archive's.
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
	// Fingerprint is a digest of what the tree looks like from outside: paths,
	// types, sizes, times and modes.
	Fingerprint string   `json:"fingerprint"`
	Skipped     []string `json:"skipped,omitempty"`
	Millis      int64    `json:"millis"`
	FirstFile   int64    `json:"first_file_millis,omitempty"`
}

// RestoreResult says what was restored.
type RestoreResult struct {
	CacheTree
	// Notes say what was left out that the cache's paths name, one line each.
	Notes []string `json:"notes,omitempty"`
	// Transferred is when the last byte had come, Extracting when the first file
	// was there; both count from the order's beginning.
	Transferred time.Duration `json:"transferred_ns,omitempty"`
	Extracting  time.Duration `json:"extracting_ns,omitempty"`
}

// SaveOrder asks for a cache's files to be packed and written as parts.
type SaveOrder struct {
	Paths     []string `json:"paths,omitempty"`
	Untracked bool     `json:"untracked,omitempty"`
	// Unless is the fingerprint of files that need no saving.
	Unless string      `json:"unless,omitempty"`
	Limits CacheLimits `json:"limits"`
}

// SaveResult says what was written: Parts in their order, or that there was
// nothing to write.
type SaveResult struct {
	CacheTree
	Empty     bool        `json:"empty,omitempty"`
	Unchanged bool        `json:"unchanged,omitempty"`
	Parts     []CachePart `json:"parts,omitempty"`
	// Notes say what was left out and which path matches nothing, one line each.
	Notes []string `json:"notes,omitempty"`
}

// CachePart is a part that the storage has taken.
type CachePart struct {
	Number int    `json:"number"`
	Size   int64  `json:"size"`
	ETag   string `json:"etag"`
}

// CacheAsk asks for a presigned request: Read reads the object to restore, Part
// writes one part of the one to save.
type CacheAsk struct {
	N    int64    `json:"n"`
	Read *ReadAsk `json:"read,omitempty"`
	Part *PartAsk `json:"part,omitempty"`
}

// ReadAsk is for the object in any ranges, pinned to the version that the order
// was given for. Renew says that the answer before was refused or has run out.
type ReadAsk struct {
	Renew bool `json:"renew,omitempty"`
}

// PartAsk is for a part of exactly that size.
type PartAsk struct {
	Number int   `json:"number"`
	Size   int64 `json:"size"`
	Renew  bool  `json:"renew,omitempty"`
}

// CacheAnswer answers the ask of the same number. Whoever has the URL can do
// what it says until it runs out.
type CacheAnswer struct {
	N   int64  `json:"n"`
	URL string `json:"url,omitempty"`
	// Header was signed along and has to be sent.
	Header map[string][]string `json:"header,omitempty"`
	Error  string              `json:"error,omitempty"`
}

// CacheProgress tells how far the order has come, or what holds it up.
type CacheProgress struct {
	Files int64 `json:"files,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
	// Wire is how many bytes went to or came from the storage.
	Wire int64 `json:"wire,omitempty"`
	// Note says why something is tried again: one line for people.
	Note string `json:"note,omitempty"`
}

// EncodeCacheHeader returns the header line with its newline.
func EncodeCacheHeader(h CacheHeader) ([]byte, error) {
	if err := h.validate(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode cache header: %w", err)
	}
	return fmt.Appendf(nil, "%s %s\n", CacheMagic, b), nil
}

// DecodeCacheHeader parses a header line, with or without its newline.
func DecodeCacheHeader(line string) (CacheHeader, error) {
	var h CacheHeader
	magic, body, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if !ok || magic != CacheMagic {
		return h, fmt.Errorf("cache header starts with %q, expected %q: podlane and podlane-helper are of different versions", truncate(magic, 20), CacheMagic)
	}
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		return h, fmt.Errorf("decode cache header: %w", err)
	}
	return h, h.validate()
}

func (h CacheHeader) validate() error {
	if !path.IsAbs(h.Project) || path.Clean(h.Project) != h.Project || h.Project == "/" {
		return fmt.Errorf("project folder %q: expected an absolute path other than /", truncate(h.Project, 100))
	}
	return nil
}

// CacheError is an order that failed in the pod, for a reason that is not the
// connection's.
type CacheError struct {
	Code   CacheCode
	Reason string
}

// Error is the reason that the pod gave.
func (e *CacheError) Error() string { return e.Reason }

// ErrCacheBroken means that a session ended before its order was done. Whatever
// the order had begun is undone by the time the next session is ready.
var ErrCacheBroken = errors.New("the connection to the pod broke")
