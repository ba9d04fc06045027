package artifacts

import (
	"archive/zip"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// oneFile is an archive with one file, f.
func oneFile(t *testing.T) []byte {
	return zipOf(t, func(z *zip.Writer) { addFile(t, z, "f", 0o640, "content") })
}

func addFile(t *testing.T, archive *zip.Writer, name string, mode os.FileMode, content string) {
	t.Helper()
	header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: testTime}
	header.SetMode(mode)
	w, err := archive.CreateHeader(header)
	must(t, err)
	_, err = w.Write([]byte(content))
	must(t, err)
}

func TestDownloadAnswers(t *testing.T) {
	whole := oneFile(t)
	short := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write([]byte(strings.Repeat("x", 70_000)))
	}
	for name, tc := range map[string]struct {
		answers []http.HandlerFunc
		code    int
		tries   int
		want    []string
	}{
		"fine":            {nil, 0, 1, []string{"coordinator... ok"}},
		"not found":       {[]http.HandlerFunc{status(404, `{"message":"404 Not found"}`)}, 1, 1, []string{"ERROR: Downloading artifacts from coordinator... 404 Not Found: not found: the artifacts have expired"}},
		"unauthorized":    {[]http.HandlerFunc{status(401, `{"message":"401 Unauthorized"}`)}, 1, 1, []string{"401 Unauthorized: unauthorized: the token of the dependency"}},
		"forbidden":       {[]http.HandlerFunc{status(403, `<Error><Code>AccessDenied</Code><Message>VPC</Message></Error>`)}, 1, 1, []string{"403 Forbidden (AccessDenied VPC): forbidden"}},
		"502 then fine":   {[]http.HandlerFunc{status(502, "<html>nginx</html>")}, 0, 2, []string{"502 Bad Gateway: attempt 1 of 3", "ok"}},
		"reset":           {[]http.HandlerFunc{reset, reset, reset}, 1, 3, []string{"attempt 2 of 3", "ERROR: ", "EOF"}},
		"broken off":      {[]http.HandlerFunc{short}, 0, 2, []string{"the download broke off: unexpected EOF: attempt 1 of 3", "ok"}},
		"not a zip":       {[]http.HandlerFunc{status(200, "<html>")}, 1, 1, []string{"ERROR: the downloaded archive (6 bytes) is not a zip: zip: not a valid zip file"}},
		"empty":           {[]http.HandlerFunc{status(200, "")}, 1, 1, []string{"(0 bytes) is empty"}},
		"gzip":            {[]http.HandlerFunc{status(200, "\x1f\x8b\x08")}, 1, 1, []string{"is gzip, which cannot be extracted; expected zip"}},
		"cut zip":         {[]http.HandlerFunc{status(200, string(whole[:len(whole)-30]))}, 1, 1, []string{"is a damaged zip"}},
		"unusable target": {[]http.HandlerFunc{redirectTo("ftp://host/x")}, 1, 1, []string{"redirects to ftp://host: not followed, expected https"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGitLab(t, tc.answers...)
			g.archive = whole
			dir := t.TempDir()
			g.run(t, dir, "artifacts-downloader").want(t, tc.code, tc.want...)
			if _, requests := g.seen(); len(requests) != tc.tries {
				t.Errorf("%d requests, want %d", len(requests), tc.tries)
			}
			want := map[string]entry{}
			if tc.code == 0 {
				want["f"] = entry{Mode: 0o640, Content: "content", Time: testTime}
			}
			if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
				t.Errorf("left behind (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDirectDownload(t *testing.T) {
	var tokens []string
	serve := func(code int, body []byte) *httptest.Server {
		storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tokens = append(tokens, r.Header.Get("JOB-TOKEN"))
			w.WriteHeader(code)
			_, _ = w.Write(body)
		}))
		t.Cleanup(storage.Close)
		return storage
	}
	t.Run("storage answers", func(t *testing.T) {
		storage := serve(200, oneFile(t))
		g := newGitLab(t, http.RedirectHandler(storage.URL+"/bucket/key?signature=secret", http.StatusFound).ServeHTTP)
		runWith(t, Config{Dir: t.TempDir(), Env: []string{"FF_USE_DIRECT_DOWNLOAD=true"}},
			"artifacts-downloader", "--url", g.URL, "--token", testToken, "--id", "42").
			want(t, 0, "ok  id=42 host="+strings.TrimPrefix(storage.URL, "http://"))
		if _, requests := g.seen(); requests[0].URL.RawQuery != "direct_download=true" {
			t.Errorf("asked for %s", requests[0].URL)
		}
	})
	t.Run("storage refuses", func(t *testing.T) {
		storage := serve(403, []byte(`<Error><Code>AccessDenied</Code></Error>`))
		g := newGitLab(t, http.RedirectHandler(storage.URL+"/bucket/key?signature=secret", http.StatusFound).ServeHTTP)
		g.archive = oneFile(t)
		got := g.run(t, t.TempDir(), "artifacts-downloader", "--direct-download")
		got.want(t, 0, "403 Forbidden (AccessDenied)", "attempt 1 of 3", "ok")
		if strings.Contains(got.output, "signature") {
			t.Errorf("a signed address is in the output:\n%s", got.output)
		}
		if _, requests := g.seen(); requests[1].URL.RawQuery != "" {
			t.Errorf("second attempt asked for %s", requests[1].URL)
		}
	})
	t.Run("storage is out of reach", func(t *testing.T) {
		storage := serve(200, nil)
		storage.Close()
		g := newGitLab(t, http.RedirectHandler(storage.URL+"/bucket/key?signature=secret", http.StatusFound).ServeHTTP)
		g.archive = oneFile(t)
		got := g.run(t, t.TempDir(), "artifacts-downloader", "--direct-download")
		got.want(t, 0, "connection refused: attempt 1 of 3", "ok")
		if strings.Contains(got.output, "signature") {
			t.Errorf("a signed address is in the output:\n%s", got.output)
		}
	})
	for _, token := range tokens {
		if token != "" {
			t.Error("a storage was given the job's token")
		}
	}
}

func TestTLS(t *testing.T) {
	plain := newGitLab(t)
	plain.archive = oneFile(t)
	g := httptest.NewUnstartedServer(http.HandlerFunc(plain.serve))
	g.Config.ErrorLog = log.New(io.Discard, "", 0) // it reports our refusals
	g.StartTLS()
	t.Cleanup(g.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	must(t, os.WriteFile(ca, pemOf(g.Certificate()), 0o600))
	args := []string{"artifacts-downloader", "--url", g.URL, "--token", testToken, "--id", "42"}

	runWith(t, Config{Dir: t.TempDir(), Env: []string{"CI_SERVER_TLS_CA_FILE=" + ca}}, args...).want(t, 0, "ok")
	runWith(t, Config{Dir: t.TempDir()}, append(args, "--tls-ca-file", ca)...).want(t, 0, "ok")
	runWith(t, Config{Dir: t.TempDir()}, append(args, "--tls-ca-file", "/no/such/file")...).
		want(t, 1, "WARNING: CA file is not used: open /no/such/file: no such file", "certificate signed by unknown authority")
}

func TestHostileArchives(t *testing.T) {
	for name, tc := range map[string]struct {
		write func(*testing.T, *zip.Writer)
		want  string
	}{
		"parent": {func(t *testing.T, z *zip.Writer) {
			addFile(t, z, "ok", 0o644, "")
			addFile(t, z, "../evil", 0o644, "x")
		}, `archive refused: entry "../evil" leads out of the project directory`},
		"hidden":   {func(t *testing.T, z *zip.Writer) { addFile(t, z, "a/../../evil", 0o644, "x") }, "archive refused"},
		"absolute": {func(t *testing.T, z *zip.Writer) { addFile(t, z, "/evil", 0o644, "x") }, "archive refused"},
		"no name":  {func(t *testing.T, z *zip.Writer) { addFile(t, z, "", 0o644, "x") }, "archive refused"},
		"nul":      {func(t *testing.T, z *zip.Writer) { addFile(t, z, "a\x00b", 0o644, "x") }, "archive refused"},
		"through own link": {func(t *testing.T, z *zip.Writer) {
			addFile(t, z, "d", os.ModeSymlink|0o777, "..")
			addFile(t, z, "d/evil", 0o644, "x")
		}, `extract "d": `},
		"through link in project": {func(t *testing.T, z *zip.Writer) { addFile(t, z, "up/evil", 0o644, "x") }, `extract "up/evil": `},
		"directory through link":  {func(t *testing.T, z *zip.Writer) { addFile(t, z, "up/evil/", os.ModeDir|0o755, "") }, `extract "up/evil/": `},
		"link through link":       {func(t *testing.T, z *zip.Writer) { addFile(t, z, "up/evil", os.ModeSymlink|0o777, "x") }, `extract "up/evil": `},
		"chmod through link":      {func(t *testing.T, z *zip.Writer) { addFile(t, z, "up/", os.ModeDir|0o777, "") }, `extract "up/": `},
		"long link": {func(t *testing.T, z *zip.Writer) {
			addFile(t, z, "l", os.ModeSymlink|0o777, strings.Repeat("x", 5000))
		}, "a link's target has 4097 bytes or more"},
	} {
		t.Run(name, func(t *testing.T) {
			base := plant(t, map[string]string{"project/up": linkTo + ".."})
			g := newGitLab(t)
			g.archive = zipOf(t, func(z *zip.Writer) { tc.write(t, z) })
			g.run(t, filepath.Join(base, "project"), "artifacts-downloader").want(t, 1, "ERROR: ", tc.want)
			outside := tree(t, base)
			for name := range outside {
				if name != "project" && !strings.HasPrefix(name, "project/") {
					t.Errorf("%s was made outside the project", name)
				}
			}
			if strings.HasPrefix(tc.want, "archive refused") && len(outside) != 2 {
				t.Errorf("a refused archive left %v", outside)
			}
		})
	}
}

func TestExtractDetails(t *testing.T) {
	g := newGitLab(t)
	g.archive = zipOf(t, func(z *zip.Writer) {
		addFile(t, z, "closed/", os.ModeDir|0o555, "")
		addFile(t, z, "closed/f", 0o444, "in a directory that may not be written to")
		addFile(t, z, "setuid", os.ModeSetuid|0o755, "x")
		addFile(t, z, "pipe", os.ModeNamedPipe|0o644, "")
		addFile(t, z, "hard", 0o644, "new")
		addFile(t, z, "linked", 0o644, "new")
		addFile(t, z, ".git/config", 0o644, "x")
	})
	dir := plant(t, map[string]string{"other": "old", "linked": linkTo + "other"})
	must(t, os.Link(filepath.Join(dir, "other"), filepath.Join(dir, "hard")))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "closed"), 0o755) }) // or it cannot be deleted
	g.run(t, dir, "artifacts-downloader").
		want(t, 0, "WARNING: File ignored: pipe: not a regular file", "WARNING: Part of .git directory is on the list of files to extract")
	got := tree(t, dir)
	for name, want := range map[string]entry{
		"closed":   {Mode: os.ModeDir | 0o555},
		"closed/f": {Mode: 0o444, Content: "in a directory that may not be written to", Time: testTime},
		"setuid":   {Mode: 0o755, Content: "x", Time: testTime},
		"hard":     {Mode: 0o644, Content: "new", Time: testTime},
		"linked":   {Mode: 0o644, Content: "new", Time: testTime},
		"other":    {Mode: 0o644, Content: "old", Time: testTime},
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestDamagedContent(t *testing.T) {
	g := newGitLab(t)
	g.archive = zipOf(t, func(z *zip.Writer) {
		header := &zip.FileHeader{Name: "f", Method: zip.Store, CRC32: 1, UncompressedSize64: 3, CompressedSize64: 3}
		w, err := z.CreateRaw(header)
		must(t, err)
		_, err = w.Write([]byte("abc"))
		must(t, err)
	})
	g.run(t, t.TempDir(), "artifacts-downloader").want(t, 1, `ERROR: extract "f": zip: checksum error`)
}
