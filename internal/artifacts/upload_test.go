package artifacts

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUploadAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []http.HandlerFunc
		code    int
		tries   int
		want    []string
	}{
		"too large": {
			[]http.HandlerFunc{status(413, `{"message":"413 Request Entity Too Large"}`)},
			1, 1,
			[]string{`ERROR: Uploading artifacts as "archive" to coordinator... 413 Request Entity Too Large: too large: send less`},
		},
		"forbidden":  {[]http.HandlerFunc{status(403, `{"message":"403 Forbidden - token `+testToken+` is off"}`)}, 1, 1, []string{"403 Forbidden (403 Forbidden - token [MASKED] is off): refused: the job is over"}},
		"bad":        {[]http.HandlerFunc{status(400, `{"message":{"file":["is missing"]}}`)}, 1, 1, []string{"400 Bad Request (map[file:[is missing]]), expected 201 Created"}},
		"not gitlab": {[]http.HandlerFunc{status(200, `<html>Please log in</html>`)}, 1, 1, []string{"200 OK, expected 201 Created"}},
		"500 then fine": {
			[]http.HandlerFunc{status(500, `{"message":"500 Internal Server Error"}`)},
			0, 2,
			[]string{"WARNING: ", "500 Internal Server Error: attempt 1 of 3", "201 Created"},
		},
		"reset then fine": {[]http.HandlerFunc{reset, reset}, 0, 3, []string{"attempt 1 of 3", "attempt 2 of 3", "201 Created"}},
		"503 for ever":    {[]http.HandlerFunc{status(503, ""), status(503, ""), status(503, "")}, 1, 3, []string{"attempt 2 of 3", "ERROR: ", "503 Service Unavailable"}},
		"to GET":          {[]http.HandlerFunc{http.RedirectHandler("/elsewhere", http.StatusFound).ServeHTTP}, 1, 1, []string{"302 Found: uploads are redirected in a way that loses their content"}},
		"no location":     {[]http.HandlerFunc{status(307, "")}, 1, 1, []string{"307 Temporary Redirect without a usable location"}},
		"in a circle": {[]http.HandlerFunc{
			redirectTo(testPath), redirectTo(testPath), redirectTo(testPath), redirectTo(testPath), redirectTo(testPath),
		}, 1, 5, []string{"redirects more than 5 times"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGitLab(t, tc.answers...)
			dir := plant(t, map[string]string{"f": strings.Repeat("x", 1<<20)})
			g.run(t, dir, "artifacts-uploader", "--path", "f", "--artifact-type", "archive").want(t, tc.code, tc.want...)
			uploads, requests := g.seen()
			if len(requests) != tc.tries {
				t.Errorf("%d requests, want %d", len(requests), tc.tries)
			}
			if complete := len(uploads) == 1; complete != (tc.code == 0) {
				t.Errorf("%d complete uploads with exit code %d", len(uploads), tc.code)
			}
		})
	}
}

func redirectTo(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

func TestUploadRefusedBeforeItIsSent(t *testing.T) {
	read := make(chan int64, 1)
	g := newGitLab(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusForbidden)
		_ = http.NewResponseController(w).Flush()
		n, _ := io.Copy(io.Discard, r.Body)
		read <- n
	})
	dir := plant(t, map[string]string{"f": strings.Repeat("x", 1<<20)})
	g.run(t, dir, "artifacts-uploader", "--path", "f", "--artifact-format", "raw").want(t, 1, "403 Forbidden")
	if n := <-read; n != 0 {
		t.Errorf("%d bytes were sent to a server that had refused them", n)
	}
}

func TestUploadRedirects(t *testing.T) {
	dir := plant(t, map[string]string{"f": "x"})
	t.Run("to another gitlab", func(t *testing.T) {
		primary := newGitLab(t)
		secondary := newGitLab(t, redirectTo(primary.URL+testPath))
		secondary.run(t, dir, "artifacts-uploader", "--path", "f", "--artifact-type", "junit").want(t, 0, "201 Created")
		uploads, _ := primary.seen()
		if len(uploads) != 1 || uploads[0].query != "artifact_type=junit" {
			t.Errorf("the primary got %+v", uploads)
		}
	})
	t.Run("to a storage", func(t *testing.T) {
		var token string
		storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token = r.Header.Get("JOB-TOKEN")
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusCreated)
		}))
		t.Cleanup(storage.Close)
		g := newGitLab(t, redirectTo(storage.URL+"/bucket/key?signature=s"))
		g.run(t, dir, "artifacts-uploader", "--path", "f").want(t, 0, "201 Created")
		if token != "" {
			t.Error("the storage was given the job's token")
		}
	})
}

func TestTrusts(t *testing.T) {
	for _, tc := range []struct {
		gitlab, to string
		want       bool
	}{
		{"https://gitlab.example", "https://gitlab.example" + testPath + "?direct_download=true", true},
		{"https://gitlab.example", "https://primary.example" + testPath, true},
		{"http://gitlab.example", "https://gitlab.example" + testPath, true},
		{"https://gitlab.example", "http://gitlab.example" + testPath, false},
		{"https://gitlab.example", "https://s3.example/bucket" + testPath, false},
		{"https://gitlab.example/git", "https://primary.example/git" + testPath, true},
	} {
		endpoint, err := artifactsURL(tc.gitlab, testID)
		must(t, err)
		to, err := url.Parse(tc.to)
		must(t, err)
		if got := (&client{endpoint: endpoint}).trusts(to); got != tc.want {
			t.Errorf("a job of %s trusts %s: %v, want %v", tc.gitlab, tc.to, got, tc.want)
		}
	}
}

func TestUploadFormats(t *testing.T) {
	dir := plant(t, map[string]string{
		"reports/a.xml":      "<a/>",
		"reports/sub/bö.xml": "<b/>",
		"reports/link":       linkTo + "a.xml",
	})
	t.Run("gzip", func(t *testing.T) {
		g := newGitLab(t)
		g.run(t, dir, "artifacts-uploader", "--path", "reports", "--artifact-format", "gzip", "--artifact-type", "junit", "--name", "junit.xml").
			want(t, 0, "WARNING: File ignored: reports/link: not a regular file", `as "junit"`)
		uploads, _ := g.seen()
		if got, want := uploads[0].fileName, "junit.xml.gz"; got != want {
			t.Errorf("file name %q, want %q", got, want)
		}
		want := []member{
			{"a.xml", "reports/a.xml", "<a/>"},
			{"e:b%C3%B6.xml", "e:reports%2Fsub%2Fb%C3%B6.xml", "<b/>"},
		}
		if diff := cmp.Diff(want, members(t, uploads[0].content)); diff != "" {
			t.Errorf("members (-want +got):\n%s", diff)
		}
	})
	t.Run("raw", func(t *testing.T) {
		g := newGitLab(t)
		g.run(t, dir, "artifacts-uploader", "--path", "reports/a.xml", "--artifact-format", "raw", "--name", "metrics.txt").want(t, 0)
		uploads, _ := g.seen()
		if got := uploads[0]; got.fileName != "metrics.txt" || string(got.content) != "<a/>" {
			t.Errorf("got %s with %q", got.fileName, got.content)
		}
	})
	t.Run("raw needs one file", func(t *testing.T) {
		g := newGitLab(t)
		g.run(t, dir, "artifacts-uploader", "--path", "reports", "--artifact-format", "raw").
			want(t, 1, "read artifacts: only one file can be sent as raw, found 2")
		if uploads, _ := g.seen(); len(uploads) != 0 {
			t.Error("something was uploaded")
		}
	})
	t.Run("default name and format", func(t *testing.T) {
		g := newGitLab(t)
		g.run(t, dir, "artifacts-uploader", "--path", "reports/a.xml", "--name", "").want(t, 0, "Uploading artifacts to coordinator... 201")
		uploads, _ := g.seen()
		if got := uploads[0]; got.fileName != "default.zip" || got.query != "" {
			t.Errorf("got %s?%s", got.fileName, got.query)
		}
	})
}

type member struct{ Name, Comment, Content string }

// members reads a gzip file one member at a time.
func members(t *testing.T, content []byte) []member {
	t.Helper()
	var got []member
	source := bytes.NewReader(content)
	reader, err := gzip.NewReader(source)
	for ; err == nil; err = reader.Reset(source) {
		reader.Multistream(false)
		text, err := io.ReadAll(reader)
		must(t, err)
		got = append(got, member{reader.Name, reader.Comment, string(text)})
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	return got
}

func TestUnreadableFileSendsNoHalfArchive(t *testing.T) {
	dir := plant(t, map[string]string{"a": strings.Repeat("x", 1<<20), "b": "x"})
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	g := newGitLab(t)
	log := newLines(t.Output(), testToken)
	client, err := newClient(credentials{url: g.URL, token: testToken, id: testID}, 0, 0, log)
	must(t, err)
	defer client.close()
	up := &upload{client: client, fileName: "f", pack: func(ctx context.Context, w io.Writer) error {
		return zipPacker(1)(ctx, w, root, []string{"a", "b/not-in-a-directory"}, log)
	}}
	if _, err := up.send(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "read artifacts: ") {
		t.Errorf("error: %v", err)
	}
	if uploads, _ := g.seen(); len(uploads) != 0 {
		t.Error("half an archive looked whole")
	}
}

func TestProvenance(t *testing.T) {
	dir := plant(t, map[string]string{"app": "binary", "victim": "v", "rel-metadata.json": linkTo + "victim"})
	g := newGitLab(t)
	args := []string{
		"artifacts-uploader", "--url", g.URL, "--token", testToken, "--id", "42",
		"--generate-artifacts-metadata", "--runner-id", "9", "--repo-url", "https://gitlab.example/a/b",
		"--repo-digest", "abc", "--job-name", "build", "--executor-name", "custom", "--runner-name", "r",
		"--started-at", "2026-11-21T10:00:00Z", "--ended-at", "2026-11-21T12:00:01+01:00", "--schema-version", "v1",
		"--metadata-parameter", "CI", "--metadata-parameter", "SECRET", "--path", "app", "--name", "rel", "--artifact-format", "zip",
	}
	runWith(t, Config{Dir: dir, Env: []string{"CI_RUNNER_VERSION=19.3.0"}}, args...).want(t, 0, "Generating artifacts statement", "201")
	uploads, _ := g.seen()
	archive, err := zip.NewReader(bytes.NewReader(uploads[0].content), int64(len(uploads[0].content)))
	must(t, err)
	text, err := archive.Open("rel-metadata.json")
	must(t, err)
	var got map[string]any
	must(t, json.NewDecoder(text).Decode(&got))
	var want map[string]any
	must(t, json.Unmarshal([]byte(`{
		"_type": "https://in-toto.io/Statement/v0.1",
		"predicateType": "https://slsa.dev/provenance/v1",
		"subject": [{"name": "app", "digest": {"sha256": "9a3a45d01531a20e89ac6ae10b0b0beb0492acd7216a368aa062d1a5fecaf9cd"}}],
		"predicate": {
			"buildDefinition": {
				"buildType": "https://gitlab.com/gitlab-org/gitlab-runner/-/blob/v19.3.0/PROVENANCE.md",
				"externalParameters": {"CI": "", "SECRET": "", "entryPoint": "build", "source": "https://gitlab.example/a/b"},
				"internalParameters": {"name": "r", "executor": "custom", "architecture": "amd64", "job": "42"},
				"resolvedDependencies": [{"uri": "https://gitlab.example/a/b", "digest": {"sha256": "abc"}}]
			},
			"runDetails": {
				"builder": {"id": "https://gitlab.example/a/b/-/runners/9", "version": {"gitlab-runner": "v19.3.0"}},
				"metadata": {"invocationId": "42", "startedOn": "2026-11-21T10:00:00Z", "finishedOn": "2026-11-21T11:00:01Z"}
			}
		}
	}`), &want))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statement (-want +got):\n%s", diff)
	}
	victim, err := os.ReadFile(filepath.Join(dir, "victim"))
	must(t, err)
	if string(victim) != "v" {
		t.Error("the statement was written through a link")
	}
}
