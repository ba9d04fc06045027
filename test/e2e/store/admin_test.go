package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podlane/cacheclient/archive"
	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
)

// program is podlane as somebody on call has it: with settings and AWS
// credentials of their own.
type program struct {
	path, config string
	environ      []string
}

func newProgram(t *testing.T, s server, bucket string) program {
	t.Helper()
	config := filepath.Join(t.TempDir(), "podlane.toml")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "[cache]\nendpoint = %q\nbucket = %q\nprefix = \"p\"\npath_style = true\n", s.Address, bucket), 0o600))
	return program{
		path: filepath.Join(stackOf(t).Root, "bin", "podlane"), config: config,
		environ: append(os.Environ(), "AWS_ACCESS_KEY_ID="+s.AccessKey, "AWS_SECRET_ACCESS_KEY="+s.SecretKey, "AWS_SESSION_TOKEN=", "AWS_PROFILE="),
	}
}

func (p program) run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, append([]string{"cache", "--config", p.config}, args...)...)
	cmd.Env = p.environ
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (p program) succeeds(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := p.run(t, args...)
	if err != nil {
		t.Fatalf("podlane cache %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

func (p program) json(t *testing.T, into any, args ...string) {
	t.Helper()
	must(t, json.Unmarshal([]byte(p.succeeds(t, append(args, "--json")...)), into))
}

type listed struct {
	Key     string `json:"key"`
	Project int    `json:"project_id"`
	Scope   string `json:"scope"`
	Size    int64  `json:"size"`
	Object  string `json:"object"`
}

// save packs a small tree and uploads it as a job would.
func save(t *testing.T, s *store.Store, object string, meta store.Meta) {
	t.Helper()
	tree := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(tree, "deps", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(tree, "deps", "sub", "file"), []byte("contents"), 0o644))
	must(t, os.Symlink("sub/file", filepath.Join(tree, "deps", "link")))
	upload, err := s.CreateUpload(t.Context(), object, meta)
	must(t, err)
	uploader := newClient(t).Uploader(&signer{store: s, upload: upload, life: time.Hour})
	_, err = archive.Write(t.Context(), tree, []string{"deps", "deps/link", "deps/sub", "deps/sub/file"}, uploader, archive.WriteOptions{})
	must(t, err)
	_, err = s.Complete(t.Context(), upload, uploader.Done(), store.Once)
	must(t, err)
}

// awaitOlder waits until the clocks of the server and of this machine agree that
// nothing was written just now: servers round dates, and not all down.
func awaitOlder(t *testing.T, p program, k string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		var found []listed
		p.json(t, &found, "prune", "--older-than", "1ms", k)
		if len(found) == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after a minute %d of 2 caches are older than a millisecond", len(found))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func TestCacheCommands(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, server server) {
		bucket, s := server.newBucket(t)
		p := newProgram(t, server, bucket)
		object := func(project int64, scope key.Scope, k string) string {
			space, err := key.NewSpace("p", "0a", project)
			must(t, err)
			return space.Object(scope, k, somePaths)
		}
		long := "node-" + strings.Repeat("x", 300)
		save(t, s, object(1, key.Protected, "node-1"), store.Meta{
			Key: "node-1", Paths: "deps, (untracked)", Job: 7, JobName: "install", Ref: "main", Created: time.Now(), Lockfiles: key.Marks{"web/package-lock.json": "01234567"},
		})
		save(t, s, object(1, key.Unprotected, "node-1"), store.Meta{Key: "node-1"})
		save(t, s, object(2, key.Protected, long), store.Meta{Key: long})
		for _, foreign := range []string{"p/readme.txt", "elsewhere/1/protected/x"} {
			_, err := s.Put(t.Context(), foreign, []byte("not a cache"), store.Meta{}, store.Once)
			must(t, err)
		}
		damaged := object(3, key.Protected, "damaged")
		_, err := s.Put(t.Context(), damaged, []byte("not an archive"), store.Meta{}, store.Once)
		must(t, err)

		count := func(want int, args ...string) []listed {
			t.Helper()
			var got []listed
			p.json(t, &got, args...)
			if len(got) != want {
				t.Errorf("podlane cache %s: %d entries, want %d", strings.Join(args, " "), len(got), want)
			}
			return got
		}
		count(4, "ls")
		count(3, "ls", "node-*")
		count(2, "ls", "node-1")
		count(1, "ls", "--project", "2")
		only := count(1, "ls", "--scope", "unprotected")
		if len(only) == 1 && (only[0].Key != "node-1" || only[0].Project != 1 || only[0].Scope != "unprotected" || only[0].Size == 0) {
			t.Errorf("listed %+v", only[0])
		}
		if table := p.succeeds(t, "ls"); !strings.Contains(table, "KEY") || !strings.Contains(table, "node-1") {
			t.Errorf("the table lacks something:\n%s", table)
		}

		text := p.succeeds(t, "inspect", "node-1", "--scope", "protected", "--files")
		for _, want := range []string{"7 install", "main", "deps, (untracked)", "web/package-lock.json 01234567", "unpacked 8 B in 1 files", "deps/sub/file", "deps/link -> sub/file"} {
			if !strings.Contains(text, want) {
				t.Errorf("inspect lacks %q:\n%s", want, text)
			}
		}
		var details struct {
			Key   string `json:"key"`
			Files int    `json:"files"`
		}
		if p.json(t, &details, "inspect", long); details.Key != long || details.Files != 1 {
			t.Errorf("inspect says %+v, want the whole key", details)
		}
		fails := func(want string, args ...string) {
			t.Helper()
			_, stderr, err := p.run(t, args...)
			if err == nil || !strings.Contains(stderr, want) {
				t.Errorf("podlane cache %s: %v, %q; want an error with %q", strings.Join(args, " "), err, stderr, want)
			}
		}
		fails("2 caches are called node-1", "inspect", "node-1")
		fails("there is no cache nowhere", "inspect", "nowhere")
		fails("not a valid cache archive", "inspect", damaged)
		fails(`--scope is "public"`, "ls", "--scope", "public")
		fails("older-than", "prune")

		file := filepath.Join(t.TempDir(), "cache.tar.zst")
		p.succeeds(t, "get", object(2, key.Protected, long), file)
		content, err := os.ReadFile(file)
		must(t, err)
		index, err := archive.ReadIndex(content, int64(len(content)), archive.Limits{})
		if err != nil || index.Summary().Files != 1 {
			t.Errorf("what was fetched is no archive with one file: %v", err)
		}
		fails("file exists", "get", damaged, file)

		var totals []struct {
			Project int `json:"project_id"`
			Entries int `json:"entries"`
		}
		if p.json(t, &totals, "stats"); len(totals) != 4 {
			t.Errorf("totals: %+v, want 4", totals)
		}

		count(1, "rm", damaged)
		count(4, "ls")
		count(1, "rm", damaged, "--yes")
		count(3, "ls")
		count(0, "prune", "--older-than", "24h", "--yes")
		awaitOlder(t, p, "node-1")
		count(2, "prune", "--older-than", "1ms", "node-1")
		count(3, "ls")
		count(2, "prune", "--older-than", "1ms", "node-1", "--yes")
		count(1, "ls")
		for _, foreign := range []string{"p/readme.txt", "elsewhere/1/protected/x"} {
			if _, err := s.Head(t.Context(), foreign); err != nil {
				t.Errorf("%s is gone: %v", foreign, err)
			}
		}
	})
}
