package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/cacheclient/archive"
	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
	"podlane/cacheclient/transfer"
	"podlane/internal/redact"
)

// comparable leaves out of metadata what no caller sets.
func equalMeta(t *testing.T, want, got store.Meta) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".upload" }, cmp.Ignore())); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
}

func TestWriteOnceAndRead(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		_, s := server.newBucket(t)
		meta := store.Meta{
			Key: "node/ä b-*", Job: 7, JobName: "install: [a, b]", Ref: "feature/ü", Sha: "abc", Created: time.Unix(1700000000, 0).UTC(),
			Paths: "p", Digest: "d", Fingerprint: "f", Files: 3, Bytes: 4,
			Lockfiles: key.Marks{"a,b=c/go.sum": "01234567", "ü.lock": "89abcdef"},
		}
		name := "podlane/0a/1/protected/key!2F.digest"
		if _, err := s.Head(t.Context(), name); !errors.Is(err, store.ErrNotFound) || store.NotListed(err) {
			t.Errorf("before: %v, want not found, and that for sure", err)
		}
		first, err := s.Put(t.Context(), name, []byte("first"), meta, store.Once)
		must(t, err)
		if !first.Written {
			t.Errorf("first write: %+v, want it to be ours", first)
		}
		second, err := s.Put(t.Context(), name, []byte("second!"), store.Meta{}, store.Once)
		must(t, err)
		if second.Written {
			t.Errorf("second write: %+v, want the first to stay", second)
		}
		o, err := s.Head(t.Context(), name)
		must(t, err)
		if o.Size != 5 || o.ETag == "" || o.Modified.IsZero() {
			t.Errorf("object: %+v", o)
		}
		equalMeta(t, meta, o.Meta)
		body, err := s.ReadRange(t.Context(), o, 1, 3)
		must(t, err)
		got, err := io.ReadAll(body)
		body.Close()
		if err != nil || string(got) != "irs" {
			t.Errorf("range: %q, %v", got, err)
		}
		replaced, err := s.Put(t.Context(), name, []byte("third"), store.Meta{}, store.Replace)
		must(t, err)
		if !replaced.Written {
			t.Error("replacing did not")
		}
		if _, err := s.ReadRange(t.Context(), o, 0, 1); !errors.Is(err, store.ErrExists) {
			t.Errorf("reading the version before: %v, want it refused", err)
		}
		must(t, s.Delete(t.Context(), name))
		must(t, s.Delete(t.Context(), name))
		if _, err := s.Head(t.Context(), name); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("after: %v, want not found", err)
		}
	})
}

// signer signs at once what a pod would ask for.
type signer struct {
	store  *store.Store
	object store.Object
	upload store.Upload
	life   time.Duration
}

func (s *signer) Read(ctx context.Context, _ bool) (transfer.Request, error) {
	signed, err := s.store.SignRead(ctx, s.object, s.life)
	return signed.Request, err
}

func (s *signer) Part(ctx context.Context, number int, size int64, _ bool) (transfer.Request, error) {
	signed, err := s.store.SignPart(ctx, s.upload, number, size, s.life)
	return signed.Request, err
}

const partSize = 5 << 20 // the smallest that S3 takes

func data(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8) ^ byte(i*7) ^ seed
	}
	return b
}

// send uploads an archive's parts as a pod does.
func send(t *testing.T, s *store.Store, client *transfer.Client, name string, content []byte) (store.Upload, []transfer.Done) {
	t.Helper()
	upload, err := s.CreateUpload(t.Context(), name, store.Meta{Key: "k", Created: time.Unix(1700000000, 0).UTC()})
	must(t, err)
	uploader := client.Uploader(&signer{store: s, upload: upload, life: time.Hour})
	var wg sync.WaitGroup
	for number, at := 1, 0; at < len(content); number, at = number+1, at+partSize {
		wg.Go(func() {
			part := archive.Part{Number: number, Data: content[at:min(at+partSize, len(content))]}
			if err := uploader.Part(t.Context(), part); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return upload, uploader.Done()
}

func fetch(t *testing.T, s *store.Store, client *transfer.Client, o store.Object, offset, n int64) ([]byte, error) {
	t.Helper()
	body, err := client.Reader(&signer{store: s, object: o, life: time.Hour}, o.Size).Fetch(t.Context(), offset, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func newClient(t *testing.T) *transfer.Client {
	t.Helper()
	client := transfer.New(transfer.Config{})
	t.Cleanup(client.Close)
	return client
}

func TestPresignedUploadAndDownload(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		_, s := server.newBucket(t)
		client := newClient(t)
		const name = "podlane/0a/1/unprotected/key!2F.digest"
		content := data(2*partSize+1000, 1)
		upload, parts := send(t, s, client, name, content)
		late, lateParts := send(t, s, client, name, data(partSize+1, 2))
		if _, err := s.Head(t.Context(), name); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("before it is complete: %v, want not found", err)
		}
		outcome, err := s.Complete(t.Context(), upload, parts, store.Once)
		must(t, err)
		if !outcome.Written {
			t.Errorf("first: %+v, want it to be ours", outcome)
		}
		outcome, err = s.Complete(t.Context(), late, lateParts, store.Once)
		must(t, err)
		if outcome.Written {
			t.Errorf("second: %+v, want the first to stay", outcome)
		}
		// Asked again because the answer was lost, it is still ours.
		outcome, err = s.Complete(t.Context(), upload, parts, store.Once)
		if err != nil || !outcome.Written {
			t.Errorf("again: %+v, %v; want it to be ours", outcome, err)
		}
		o, err := s.Head(t.Context(), name)
		must(t, err)
		if o.Size != int64(len(content)) || o.Meta.Key != "k" {
			t.Errorf("object: %+v", o)
		}
		for _, r := range [][2]int64{{0, o.Size}, {partSize - 10, 20}, {o.Size - 64, 64}} {
			got, err := fetch(t, s, client, o, r[0], r[1])
			if err != nil || !bytes.Equal(got, content[r[0]:r[0]+r[1]]) {
				t.Errorf("%d bytes at %d: %d bytes that differ, %v", r[1], r[0], len(got), err)
			}
		}
		must(t, s.Abort(t.Context(), upload))
	})
}

// What a job leaves that dies while it saves can be found and taken away.
func TestUnfinishedUploads(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		_, s := server.newBucket(t)
		const name = "p/0a/1/protected/unfinished"
		first, err := s.CreateUpload(t.Context(), name, store.Meta{})
		must(t, err)
		second, err := s.CreateUpload(t.Context(), name, store.Meta{})
		must(t, err)
		// MinIO finds those of a whole name only.
		found := func() (ids []string) {
			for u, err := range s.Uploads(t.Context(), name) {
				must(t, err)
				if u.Object != name || u.Begun.IsZero() {
					t.Errorf("found %+v", u)
				}
				ids = append(ids, u.ID)
			}
			slices.Sort(ids)
			return ids
		}
		want := []string{first.ID, second.ID}
		slices.Sort(want)
		if got := found(); !slices.Equal(got, want) {
			t.Errorf("found %v, want %v", got, want)
		}
		for _, id := range found() {
			must(t, s.Abort(t.Context(), store.Upload{Object: name, ID: id}))
		}
		if got := found(); len(got) > 0 {
			t.Errorf("found %v after they were aborted", got)
		}
	})
}

func TestPinnedToItsVersion(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		_, s := server.newBucket(t)
		_, err := s.Put(t.Context(), "k", []byte("one"), store.Meta{}, store.Replace)
		must(t, err)
		o, err := s.Head(t.Context(), "k")
		must(t, err)
		_, err = s.Put(t.Context(), "k", []byte("two"), store.Meta{}, store.Replace)
		must(t, err)
		if got, err := fetch(t, s, newClient(t), o, 0, 3); !errors.Is(err, transfer.ErrChanged) {
			t.Errorf("got %q, %v; want %v", got, err, transfer.ErrChanged)
		}
		must(t, s.Delete(t.Context(), "k"))
		if got, err := fetch(t, s, newClient(t), o, 0, 3); !errors.Is(err, transfer.ErrGone) {
			t.Errorf("got %q, %v; want %v", got, err, transfer.ErrGone)
		}
	})
}

// A presigned request does what it was signed for and nothing else.
func TestPresignedForNothingElse(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		_, s := server.newBucket(t)
		for _, name := range []string{"mine", "other"} {
			_, err := s.Put(t.Context(), name, []byte("data"), store.Meta{}, store.Replace)
			must(t, err)
		}
		mine, err := s.Head(t.Context(), "mine")
		must(t, err)
		read, err := s.SignRead(t.Context(), mine, time.Hour)
		must(t, err)
		upload, err := s.CreateUpload(t.Context(), "new", store.Meta{})
		must(t, err)
		part, err := s.SignPart(t.Context(), upload, 1, 4, time.Hour)
		must(t, err)
		for what, tc := range map[string]struct {
			method string
			signed transfer.Request
			change func(url string) string
			body   string
			drop   string
		}{
			"another object":    {"GET", read.Request, func(u string) string { return strings.Replace(u, "/mine?", "/other?", 1) }, "", ""},
			"deletion":          {"DELETE", read.Request, nil, "", ""},
			"writing":           {"PUT", read.Request, nil, "evil", ""},
			"any version":       {"GET", read.Request, nil, "", "If-Match"},
			"another part":      {"PUT", part.Request, func(u string) string { return strings.Replace(u, "partNumber=1", "partNumber=2", 1) }, "evil", ""},
			"the whole object":  {"PUT", part.Request, func(u string) string { return strings.Replace(u, "uploadId=", "x=", 1) }, "evil", ""},
			"more bytes":        {"PUT", part.Request, nil, "too long", ""},
			"reading an upload": {"GET", part.Request, nil, "", ""},
		} {
			url := tc.signed.URL.Reveal()
			if tc.change != nil {
				if url = tc.change(url); url == tc.signed.URL.Reveal() {
					t.Fatalf("%s: nothing to change", what)
				}
			}
			req, err := http.NewRequestWithContext(t.Context(), tc.method, url, strings.NewReader(tc.body))
			must(t, err)
			for name, values := range tc.signed.Header {
				if name != "Host" && name != tc.drop {
					req.Header[name] = values
				}
			}
			resp, err := http.DefaultClient.Do(req)
			must(t, err)
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("%s: %s, want it refused", what, resp.Status)
			}
		}
		if !strings.Contains(read.Header.Get("If-Match"), strings.Trim(mine.ETag, `"`)) {
			t.Errorf("signed headers are %v, want If-Match among them", read.Header)
		}
	})
}

var somePaths, otherPaths = key.PathsOf([]string{"deps"}, false), key.PathsOf([]string{"deps", "more"}, false)

func TestListIsWhole(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		bucket, s := server.newBucket(t)
		space, err := key.NewSpace("podlane", "0a", 1)
		must(t, err)
		const entries = 23
		for i := range entries {
			_, err := s.Put(t.Context(), space.Object(key.Protected, fmt.Sprintf("node-%04d", i), somePaths), nil, store.Meta{}, store.Replace)
			must(t, err)
		}
		for _, k := range []string{"nod", "other-1"} {
			_, err := s.Put(t.Context(), space.Object(key.Protected, k, somePaths), nil, store.Meta{}, store.Replace)
			must(t, err)
		}
		want, err := key.Fallback("node-*")
		must(t, err)
		c := key.Candidate{Want: want, Scope: key.Protected}
		pages := server.config(bucket)
		pages.PageSize = 5
		s = open(t, pages, store.Fixed(server.credentials()))
		count := 0
		newest := time.Time{}
		for o, err := range s.List(t.Context(), space.Objects(c)) {
			must(t, err)
			e, err := space.Parse(o.Name)
			must(t, err)
			if !want.Matches(e) {
				t.Errorf("%s was listed", e.Readable)
			}
			if o.Modified.After(newest) {
				newest = o.Modified
			}
			count++
		}
		if count != entries {
			t.Errorf("%d entries, want %d", count, entries)
		}
		hit, notes, err := s.Find(t.Context(), space, key.Candidates(key.Protected, "node-none", somePaths, []key.Want{want}), nil)
		must(t, err)
		if len(notes) > 0 || !hit.Candidate.Prefix || !hit.Object.Modified.Equal(newest.Truncate(time.Second)) {
			t.Errorf("found %+v with notes %q, want one from %v", hit.Object, notes, newest)
		}
	})
}

func TestFindsInOrder(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		_, s := server.newBucket(t)
		space, err := key.NewSpace("", "0a", 1)
		must(t, err)
		fallback, err := key.Fallback("n-*")
		must(t, err)
		candidates := key.Candidates(key.Unprotected, "n-1", somePaths, []key.Want{{Key: "second"}, fallback})
		unusable := map[string]bool{}
		find := func() string {
			hit, notes, err := s.Find(t.Context(), space, candidates, func(object string) bool { return unusable[object] })
			if errors.Is(err, store.ErrNotFound) && len(notes) == 0 {
				return ""
			}
			must(t, err)
			what := string(hit.Candidate.Scope) + " " + hit.Candidate.String()
			if hit.OtherPaths() {
				what += " with other paths"
			}
			return what
		}
		if got := find(); got != "" {
			t.Errorf("found %s in an empty bucket", got)
		}
		// Each is better than the one before.
		for _, step := range []struct {
			scope key.Scope
			key   string
			paths key.Paths
			want  string
		}{
			{key.Protected, "n-0", otherPaths, "protected n-* with other paths"},
			{key.Protected, "n-00", somePaths, "protected n-*"},
			{key.Unprotected, "n-2", somePaths, "unprotected n-*"},
			{key.Protected, "second", otherPaths, "protected second with other paths"},
			{key.Unprotected, "second", otherPaths, "unprotected second with other paths"},
			{key.Protected, "second", somePaths, "protected second"},
			{key.Unprotected, "second", somePaths, "unprotected second"},
			{key.Protected, "n-1", otherPaths, "protected n-1 with other paths"},
			{key.Protected, "n-1", somePaths, "protected n-1"},
			{key.Unprotected, "n-1", otherPaths, "protected n-1"},
			{key.Unprotected, "n-1", somePaths, "unprotected n-1"},
		} {
			_, err := s.Put(t.Context(), space.Object(step.scope, step.key, step.paths), []byte("x"), store.Meta{}, store.Once)
			must(t, err)
			if got := find(); got != step.want {
				t.Errorf("found %s, want %s", got, step.want)
			}
		}
		// What has turned out to be of no use is passed over.
		for _, step := range []struct {
			scope key.Scope
			paths key.Paths
			want  string
		}{
			{key.Unprotected, somePaths, "protected n-1"},
			{key.Protected, somePaths, "unprotected n-1 with other paths"},
			{key.Unprotected, otherPaths, "protected n-1 with other paths"},
			{key.Protected, otherPaths, "unprotected second"},
		} {
			unusable[space.Object(step.scope, "n-1", step.paths)] = true
			if got := find(); got != step.want {
				t.Errorf("found %s, want %s", got, step.want)
			}
		}
	})
}

// Not every server can do this, and none has to: it is done, or said not to be
// possible.
func TestRefresh(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		_, s := server.newBucket(t)
		meta := store.Meta{Key: "k", Created: time.Unix(1700000000, 0).UTC(), Lockfiles: key.Marks{"go.sum": "01234567"}}
		_, err := s.Put(t.Context(), "a b/k", []byte("data"), meta, store.Once)
		must(t, err)
		before, err := s.Head(t.Context(), "a b/k")
		must(t, err)
		if done, err := s.Refresh(t.Context(), before, 24*time.Hour); done || err != nil {
			t.Errorf("young: %v, %v; want it left alone", done, err)
		}
		done, err := s.Refresh(t.Context(), before, -24*time.Hour)
		if err != nil && !errors.Is(err, store.ErrUnsupported) {
			t.Errorf("old: %v; want it done or not supported", err)
		}
		after, err := s.Head(t.Context(), "a b/k")
		must(t, err)
		if after.Size != before.Size || after.Modified.Before(before.Modified) {
			t.Errorf("before %+v, after %+v", before, after)
		}
		if done != !after.Meta.Refreshed.IsZero() {
			t.Errorf("done is %v, but it was refreshed at %v", done, after.Meta.Refreshed)
		}
		after.Meta.Refreshed = time.Time{}
		equalMeta(t, meta, after.Meta)
		must(t, s.Delete(t.Context(), "a b/k"))
		if done, err := s.Refresh(t.Context(), before, -24*time.Hour); done || (err != nil && !errors.Is(err, store.ErrUnsupported)) {
			t.Errorf("gone: %v, %v", done, err)
		}
	})
}

// An object that is too large for one request is copied in parts.
func TestRefreshInParts(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		bucket, _ := server.newBucket(t)
		config := server.config(bucket)
		config.CopySize = partSize
		s := open(t, config, store.Fixed(server.credentials()))
		client := newClient(t)
		content := data(2*partSize+1000, 6)
		upload, parts := send(t, s, client, "a b/k", content)
		_, err := s.Complete(t.Context(), upload, parts, store.Once)
		must(t, err)
		before, err := s.Head(t.Context(), "a b/k")
		must(t, err)
		done, err := s.Refresh(t.Context(), before, -24*time.Hour)
		if err != nil && !errors.Is(err, store.ErrUnsupported) {
			t.Errorf("%v; want it done or not supported", err)
		}
		t.Logf("done: %v", done)
		after, err := s.Head(t.Context(), "a b/k")
		must(t, err)
		if done != !after.Meta.Refreshed.IsZero() {
			t.Errorf("done is %v, but it was refreshed at %v", done, after.Meta.Refreshed)
		}
		after.Meta.Refreshed = time.Time{}
		equalMeta(t, before.Meta, after.Meta)
		got, err := fetch(t, s, client, after, 0, after.Size)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes that differ, %v", len(got), err)
		}
		// Somebody else was quicker.
		_, err = s.Put(t.Context(), "a b/k", []byte("new"), store.Meta{}, store.Replace)
		must(t, err)
		if done, err := s.Refresh(t.Context(), before, -24*time.Hour); done || err != nil && !errors.Is(err, store.ErrUnsupported) {
			t.Errorf("replaced: %v, %v; want it left alone", done, err)
		}
		if o, err := s.Head(t.Context(), "a b/k"); err != nil || o.Size != 3 {
			t.Errorf("%+v, %v; want the other's", o, err)
		}
	})
}

func TestProbe(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		_, s := server.newBucket(t)
		capabilities, err := s.Probe(t.Context(), "podlane/")
		must(t, err)
		t.Logf("%+v", capabilities)
		for o, err := range s.List(t.Context(), "") {
			must(t, err)
			t.Errorf("%s was left", o.Name)
		}
	})
}

func TestMistakesAreExplained(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		bucket, _ := server.newBucket(t)
		wrongKey, wrongSecret := server.credentials(), server.credentials()
		wrongKey.AccessKey, wrongSecret.SecretKey = "nobody-knows-this", redact.New("wrong-secret-value")
		noBucket := server.config("there-is-no-such-bucket")
		https := server.config(bucket)
		https.Endpoint = strings.Replace(https.Endpoint, "http://", "https://", 1)
		noHost := server.config(bucket)
		noHost.Endpoint, noHost.Attempts = "http://s3.invalid", 1
		for what, tc := range map[string]struct {
			config store.Config
			source store.Source
			kind   error
			hint   string
		}{
			"bucket":     {noBucket, store.Fixed(server.credentials()), store.ErrConfig, "check cache.bucket"},
			"access key": {server.config(bucket), store.Fixed(wrongKey), store.ErrCredentials, "does not know the access key"},
			"secret":     {server.config(bucket), store.Fixed(wrongSecret), store.ErrCredentials, "secret key is wrong"},
			"https":      {https, store.Fixed(server.credentials()), store.ErrConfig, "speaks http, not https"},
			"host":       {noHost, store.Fixed(server.credentials()), nil, ""},
			"no credentials": {server.config(bucket), func(context.Context) (store.Credentials, error) {
				return store.Credentials{}, errors.New("vault says no")
			}, store.ErrCredentials, "vault says no"},
		} {
			s := open(t, tc.config, tc.source)
			for _, call := range []func() error{
				func() error { _, err := s.Head(t.Context(), "k"); return err },
				func() error {
					for _, err := range s.List(t.Context(), "") {
						return err
					}
					return nil
				},
				func() error { _, err := s.Put(t.Context(), "k", []byte("x"), store.Meta{}, store.Once); return err },
				func() error { _, err := s.CreateUpload(t.Context(), "k", store.Meta{}); return err },
			} {
				err := call()
				if err == nil || (tc.kind != nil && !errors.Is(err, tc.kind)) || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), tc.hint) {
					t.Errorf("%s: %v; want %v with %q", what, err, tc.kind, tc.hint)
				}
				if err != nil && (strings.Contains(err.Error(), "operation error") || strings.Contains(err.Error(), "wrong-secret-value")) {
					t.Errorf("%s: the error is not for people: %v", what, err)
				}
			}
		}
	})
}
