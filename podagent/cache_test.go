package podagent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bucket is as much of an S3 server as presigned requests need: parts are put
// under their numbers, and one object is read in ranges.
type bucket struct {
	url string

	mu     sync.Mutex
	parts  map[int][]byte
	object []byte
	// stall, if set, keeps reads from that byte on waiting.
	stall   int64
	stalled chan struct{}
	reads   int
}

func newBucket(t *testing.T) *bucket {
	t.Helper()
	b := &bucket{parts: map[int][]byte{}, stalled: make(chan struct{}, 100)}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

// ServeHTTP implements http.Handler.
func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		data, err := io.ReadAll(r.Body)
		number, err2 := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil || err2 != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.parts[number] = data
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(number)))
		return
	}
	b.mu.Lock()
	object, stall := b.object, b.stall
	b.reads++
	b.mu.Unlock()
	var from, to int64
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err == nil && stall > 0 && from < stall && to >= stall-1 && to < int64(len(object))-1 {
		select {
		case b.stalled <- struct{}{}:
		default:
		}
		<-r.Context().Done()
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(object))
}

// take makes the parts the object.
func (b *bucket) take(parts []CachePart) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.object = nil
	for _, p := range parts {
		b.object = append(b.object, b.parts[p.Number]...)
	}
}

func (b *bucket) sign(_ context.Context, ask CacheAsk) CacheAnswer {
	if ask.Part != nil {
		return CacheAnswer{URL: fmt.Sprintf("%s/%d", b.url, ask.Part.Number)}
	}
	return CacheAnswer{URL: b.url + "/object"}
}

// cacheBox is a box with a project in it.
type cacheBox struct {
	*box
	project string
	// pids are the helpers' of the sessions so far.
	mu   sync.Mutex
	pids []int
}

func newCacheBox(t *testing.T) *cacheBox {
	t.Helper()
	b := &cacheBox{box: newBox(t)}
	b.project = filepath.Join(b.root, "project")
	if err := os.Mkdir(b.project, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// connect runs the real helper, as an exec would.
func (b *cacheBox) connect(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, helper, "cache")
	cmd.Env, cmd.Stdout, cmd.Stderr = b.env, stdout, stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.mu.Lock()
	b.pids = append(b.pids, cmd.Process.Pid)
	b.mu.Unlock()
	go func() {
		_, _ = io.Copy(in, stdin)
		in.Close()
	}()
	return cmd.Wait()
}

func (b *cacheBox) lastPid() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pids[len(b.pids)-1]
}

func (b *cacheBox) open() *CacheSession {
	b.t.Helper()
	s, err := OpenCache(b.t.Context(), b.connect, CacheHeader{Project: b.project})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *cacheBox) write(files map[string][]byte) {
	b.t.Helper()
	for name, data := range files {
		file := filepath.Join(b.project, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// files lists what is in the project.
func (b *cacheBox) files() []string {
	b.t.Helper()
	var names []string
	err := filepath.WalkDir(b.project, func(file string, _ fs.DirEntry, err error) error {
		if name, _ := filepath.Rel(b.project, file); name != "." {
			names = append(names, name)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Fatal(err)
	}
	return names
}

// incompressible files of which an archive needs several frames.
func incompressible(n, size int) map[string][]byte {
	files := map[string][]byte{}
	for i := range n {
		data := make([]byte, size)
		_, _ = rand.Read(data)
		files[fmt.Sprintf("deps/d%d/f%02d", i%4, i)] = data
	}
	return files
}

func do(t *testing.T, s *CacheSession, order CacheOrder, b *bucket) CacheDone {
	t.Helper()
	done, err := s.Do(t.Context(), order, b.sign, nil)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// saved packs deps into a bucket and empties the project.
func saved(t *testing.T, b *cacheBox) (*bucket, RestoreOrder) {
	t.Helper()
	store := newBucket(t)
	b.write(incompressible(24, 1<<19))
	s := b.open()
	done := do(t, s, CacheOrder{Save: &SaveOrder{Paths: []string{"deps"}}}, store)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	store.take(done.Save.Parts)
	if err := os.RemoveAll(filepath.Join(b.project, "deps")); err != nil {
		t.Fatal(err)
	}
	return store, RestoreOrder{Size: int64(len(store.object)), Digest: done.Save.Digest, Paths: []string{"deps"}}
}

func TestCacheSession(t *testing.T) {
	t.Parallel()
	b := newCacheBox(t)
	store := newBucket(t)
	b.write(map[string][]byte{"deps/a": []byte("one"), "deps/sub/b": []byte("two"), "go.sum": []byte("x")})
	s := b.open()

	locks := do(t, s, CacheOrder{Lockfiles: &LockfilesOrder{Globs: map[string][]string{"A": {"*.sum"}, "B": {"none"}}}}, store).Lockfiles
	if len(locks.Files["A"]) != 1 || locks.Files["A"][0].Path != "go.sum" || len(locks.Files["B"]) != 0 {
		t.Errorf("lockfiles %+v", locks)
	}
	save := SaveOrder{Paths: []string{"deps"}}
	first := do(t, s, CacheOrder{Save: &save}, store).Save
	if first.Files != 2 || first.Empty || len(first.Parts) != 1 {
		t.Fatalf("saved %+v", first)
	}
	if empty := do(t, s, CacheOrder{Save: &SaveOrder{Paths: []string{"nothing"}}}, store).Save; !empty.Empty || len(empty.Notes) == 0 {
		t.Errorf("saved nothing: %+v", empty)
	}
	store.take(first.Parts)
	before := b.files()
	if err := os.RemoveAll(filepath.Join(b.project, "deps")); err != nil {
		t.Fatal(err)
	}
	restore := RestoreOrder{Size: int64(len(store.object)), Digest: first.Digest, Paths: []string{"deps"}}
	back := do(t, s, CacheOrder{Restore: &restore}, store).Restore
	if back.Files != 2 || back.Fingerprint != first.Fingerprint || !slices.Equal(before, b.files()) {
		t.Errorf("restored %+v: %v", back, b.files())
	}

	save.Unless = back.Fingerprint
	if again := do(t, s, CacheOrder{Save: &save}, store).Save; !again.Unchanged || len(again.Parts) != 0 {
		t.Errorf("saved again %+v", again)
	}
	b.write(map[string][]byte{"deps/c": []byte("three")})
	if again := do(t, s, CacheOrder{Save: &save}, store).Save; again.Unchanged || again.Files != 3 {
		t.Errorf("saved a change %+v", again)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Whatever is wrong with an object or with the way to it, the session goes on
// and the project is as it was.
func TestCacheOrdersThatFail(t *testing.T) {
	t.Parallel()
	b := newCacheBox(t)
	store, order := saved(t, b)
	whole := store.object
	middle := bytes.Clone(whole)
	middle[len(whole)/2] ^= 1
	tests := []struct {
		name   string
		object []byte
		change func(*RestoreOrder)
		sign   func(context.Context, CacheAsk) CacheAnswer
		code   CacheCode
		want   string
	}{
		{name: "flipped bit", object: middle, code: CacheDamaged, want: "damaged"},
		{name: "no archive", object: bytes.Repeat([]byte("x"), len(whole)), code: CacheDamaged, want: "not a valid cache archive"},
		{name: "shorter than it was", object: whole[:len(whole)-100], code: CacheGone},
		{name: "another archive", object: whole, change: func(o *RestoreOrder) { o.Digest = "00" }, code: CacheDamaged, want: "not the one that was saved"},
		{name: "outside the paths", object: whole, change: func(o *RestoreOrder) { o.Paths = []string{"other"} }, code: CacheDamaged, want: "none of the cache's paths"},
		{name: "nothing of the paths", object: whole, change: func(o *RestoreOrder) { o.Paths, o.Other = []string{"other"}, true }, code: CacheOther, want: "none of the cache's paths"},
		{name: "too many files", object: whole, change: func(o *RestoreOrder) { o.Limits.Files = 3 }, code: CacheDamaged},
		{
			name: "no signature", object: whole, want: "vault is sealed",
			sign: func(context.Context, CacheAsk) CacheAnswer { return CacheAnswer{Error: "vault is sealed"} },
		},
	}
	s := b.open()
	for _, tt := range tests {
		store.object = tt.object
		o, sign := order, store.sign
		if tt.change != nil {
			tt.change(&o)
		}
		if tt.sign != nil {
			sign = tt.sign
		}
		_, err := s.Do(t.Context(), CacheOrder{Restore: &o}, sign, nil)
		var failed *CacheError
		if !errors.As(err, &failed) || failed.Code != tt.code || !strings.Contains(failed.Reason, tt.want) {
			t.Errorf("%s: got %#v %v, want %q and code %q", tt.name, failed, err, tt.want, tt.code)
		}
		if left := b.files(); len(left) > 0 {
			t.Errorf("%s: left %v", tt.name, left)
		}
	}
	store.object = whole
	part := order
	part.Paths, part.Other = []string{"deps/d1"}, true
	if back := do(t, s, CacheOrder{Restore: &part}, store).Restore; back.Files != 6 || len(b.files()) != 8 {
		t.Errorf("restored %+v: %v", back, b.files())
	}
	if back := do(t, s, CacheOrder{Restore: &order}, store).Restore; back.Files != 24 {
		t.Errorf("restored %+v", back)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCacheHeaderOfAnotherVersion(t *testing.T) {
	t.Parallel()
	b := newCacheBox(t)
	cmd := b.command("cache")
	cmd.Stdin = strings.NewReader("PODLANE-CACHE/7 {}\n")
	out, err := cmd.Output()
	if err == nil || !strings.Contains(string(out), "different versions") {
		t.Errorf("got %v, %s", err, out)
	}
}

// restoring starts a restore that stalls halfway and waits until it has created
// files.
func restoring(t *testing.T, b *cacheBox, store *bucket, order RestoreOrder) (s *CacheSession, ended chan error, stop func()) {
	t.Helper()
	store.mu.Lock()
	store.stall = order.Size / 2
	store.mu.Unlock()
	s = b.open()
	ctx, cancel := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	go func() {
		_, err := s.Do(ctx, CacheOrder{Restore: &order}, store.sign, nil)
		ended <- err
	}()
	<-store.stalled
	await(t, func() bool { return len(b.files()) > 0 })
	return s, ended, cancel
}

// await waits for something that is about to happen.
func await(t *testing.T, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

func TestCacheSessionThatIsClosedUndoesARestore(t *testing.T) {
	t.Parallel()
	b := newCacheBox(t)
	store, order := saved(t, b)
	s, ended, cancel := restoring(t, b, store, order)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the order ended with %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("the session did not end in order: %v", err)
	}
	if left := b.files(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestCacheHelperThatIsKilled(t *testing.T) {
	t.Parallel()
	b := newCacheBox(t)
	store, order := saved(t, b)
	s, ended, cancel := restoring(t, b, store, order)
	defer cancel()
	if err := unix.Kill(b.lastPid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrCacheBroken) {
		t.Errorf("the order ended with %v", err)
	}
	if err := s.Close(); err == nil {
		t.Error("the session ended in order")
	}
	if len(b.files()) == 0 {
		t.Fatal("nothing is left: the test proves nothing")
	}
	again := b.open()
	if again.Removed == 0 || len(b.files()) > 0 {
		t.Errorf("removed %d, left %v", again.Removed, b.files())
	}
	store.mu.Lock()
	store.stall = 0
	store.mu.Unlock()
	if back := do(t, again, CacheOrder{Restore: &order}, store).Restore; back.Files != 24 {
		t.Errorf("restored %+v", back)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// A session that hangs, or has not noticed that its stream broke, makes room
// for the next.
func TestCacheSessionTakesOver(t *testing.T) {
	t.Parallel()
	b := newCacheBox(t)
	store, order := saved(t, b)
	s, ended, cancel := restoring(t, b, store, order)
	defer cancel()
	if err := unix.Kill(b.lastPid(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	again := b.open()
	if again.Removed == 0 || len(b.files()) > 0 {
		t.Errorf("removed %d, left %v", again.Removed, b.files())
	}
	if err := <-ended; !errors.Is(err, ErrCacheBroken) {
		t.Errorf("the first session's order ended with %v", err)
	}
	_ = s.Close()
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// A helper that is root creates files as the build container's user.
func TestCacheAsBuildUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	b := newCacheBox(t)
	store, order := saved(t, b)
	const uid, gid = 12345, 23456
	if err := errors.Join(os.WriteFile(b.layout().buildUser(), []byte("12345:23456\n"), 0o644), os.Chown(b.project, uid, gid)); err != nil {
		t.Fatal(err)
	}
	header := CacheHeader{Project: b.project, AsBuildUser: true}
	for range 2 { // the second finds the first one's files
		s, err := OpenCache(t.Context(), b.connect, header)
		if err != nil {
			t.Fatal(err)
		}
		do(t, s, CacheOrder{Restore: &order}, store)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range b.files() {
		info, err := os.Lstat(filepath.Join(b.project, name))
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != uid || owner.Gid != gid {
			t.Errorf("%s belongs to %d:%d", name, owner.Uid, owner.Gid)
		}
	}
}
