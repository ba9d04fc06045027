package store

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"podlane/cacheclient/key"
)

// Meta is what an object says about itself, in its user metadata. It is for
// people and for explanations: whoever may write the object may write anything
// there, so nothing is decided by it that the archive's own digests don't
// decide again.
type Meta struct {
	// Key is the whole key, which the object's name may have in part only.
	Key string
	// Job, JobName, Ref and Sha say what wrote it.
	Job     int64
	JobName string
	Ref     string
	Sha     string
	// Created is when it was written; a refresh doesn't change it.
	Created time.Time
	// Refreshed is when it was last written anew to outlive the bucket's
	// lifecycle; zero if never.
	Refreshed time.Time
	// Paths are the cache's paths as people read them.
	Paths string
	// Digest, Fingerprint, Files and Bytes are the archive's summary. They are
	// known only where the archive was complete before its upload began.
	Digest      string
	Fingerprint string
	Files       int
	Bytes       int64
	// Lockfiles are what the key was made from; empty if they don't fit.
	Lockfiles key.Marks

	// upload tells uploads for one object apart.
	upload string
}

// maxMeta is S3's limit on the names and values of user metadata together, with
// something to spare for servers that count the headers' prefix.
const maxMeta = 1800

// The names below x-amz-meta-. Servers do not agree on upper and lower case.
const (
	metaKey         = "key"
	metaJob         = "job"
	metaJobName     = "job-name"
	metaRef         = "ref"
	metaSha         = "sha"
	metaCreated     = "created"
	metaRefreshed   = "refreshed"
	metaPaths       = "paths"
	metaDigest      = "digest"
	metaFingerprint = "fingerprint"
	metaFiles       = "files"
	metaBytes       = "bytes"
	metaLockfiles   = "lockfiles"
	metaUpload      = "upload"
)

// encode returns the metadata as S3 has it. What doesn't fit is left out,
// beginning with the lockfiles.
func (m Meta) encode() map[string]string {
	out := map[string]string{}
	put := func(name, value string) {
		if value != "" {
			out[name] = header(value)
		}
	}
	number := func(name string, value int64) {
		if value != 0 {
			out[name] = strconv.FormatInt(value, 10)
		}
	}
	date := func(name string, value time.Time) {
		if !value.IsZero() {
			out[name] = value.UTC().Format(time.RFC3339)
		}
	}
	put(metaKey, m.Key)
	number(metaJob, m.Job)
	put(metaJobName, m.JobName)
	put(metaRef, m.Ref)
	put(metaSha, m.Sha)
	date(metaCreated, m.Created)
	date(metaRefreshed, m.Refreshed)
	put(metaPaths, m.Paths)
	put(metaDigest, m.Digest)
	put(metaFingerprint, m.Fingerprint)
	number(metaFiles, int64(m.Files))
	number(metaBytes, m.Bytes)
	put(metaUpload, m.upload)
	if len(m.Lockfiles) > 0 {
		out[metaLockfiles] = encodeMarks(m.Lockfiles)
	}
	for _, name := range []string{metaLockfiles, metaPaths, metaJobName, metaRef, metaKey} {
		if size(out) > maxMeta {
			delete(out, name)
		}
	}
	return out
}

func size(meta map[string]string) int {
	n := 0
	for name, value := range meta {
		n += len(name) + len(value)
	}
	return n
}

// header makes of any bytes what a header's value may hold.
func header(s string) string { return url.QueryEscape(s) }

// decodeMeta is encode's reverse. What is strange or missing is left empty: the
// entry may be an older or newer podlane's.
func decodeMeta(in map[string]string) Meta {
	lower := make(map[string]string, len(in))
	for name, value := range in {
		lower[strings.ToLower(name)] = value
	}
	text := func(name string) string {
		s, err := url.QueryUnescape(lower[name])
		if err != nil {
			return ""
		}
		return s
	}
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(lower[name], 10, 64)
		return max(n, 0)
	}
	date := func(name string) time.Time {
		t, _ := time.Parse(time.RFC3339, lower[name])
		return t
	}
	return Meta{
		Key: text(metaKey), Job: number(metaJob), JobName: text(metaJobName), Ref: text(metaRef), Sha: text(metaSha),
		Created: date(metaCreated), Refreshed: date(metaRefreshed), Paths: text(metaPaths),
		Digest: text(metaDigest), Fingerprint: text(metaFingerprint), Files: int(number(metaFiles)), Bytes: number(metaBytes),
		Lockfiles: decodeMarks(lower[metaLockfiles]), upload: text(metaUpload),
	}
}

// encodeMarks writes "path=digest,path=digest".
func encodeMarks(marks key.Marks) string {
	var parts []string
	for _, path := range slices.Sorted(maps.Keys(marks)) {
		parts = append(parts, header(path)+"="+header(marks[path]))
	}
	return strings.Join(parts, ",")
}

func decodeMarks(s string) key.Marks {
	if s == "" {
		return nil
	}
	marks := key.Marks{}
	for part := range strings.SplitSeq(s, ",") {
		path, mark, _ := strings.Cut(part, "=")
		path, err := url.QueryUnescape(path)
		mark, err2 := url.QueryUnescape(mark)
		if err != nil || err2 != nil || path == "" {
			return nil
		}
		marks[path] = mark
	}
	return marks
}
