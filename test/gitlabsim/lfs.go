package gitlabsim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// lfsType is the media type of Git LFS's API
// (https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md).
const lfsType = "application/vnd.git-lfs+json"

// AddLarge gives the server a large file and returns the pointer that stands
// for it in commits.
func (s *Server) AddLarge(content []byte) (string, error) {
	sum := sha256.Sum256(content)
	oid := hex.EncodeToString(sum[:])
	if err := os.MkdirAll(s.large(), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(s.large(), oid), content, 0o644); err != nil {
		return "", err
	}
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", oid, len(content)), nil
}

func (s *Server) large() string { return filepath.Join(s.dir, "large") }

type lfsObject struct {
	OID     string               `json:"oid"`
	Size    int64                `json:"size"`
	Actions map[string]lfsAction `json:"actions,omitempty"`
}

type lfsAction struct {
	Href string `json:"href"`
}

// isLFS tells whether git-lfs asks, and for what it may ask: downloads.
func isLFS(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, ".git/info/lfs/objects/batch") ||
		r.Method == http.MethodGet && path.Base(path.Dir(r.URL.Path)) == "gitlab-lfs"
}

// lfs answers whoever may fetch.
func (s *Server) lfs(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		http.ServeFile(w, r, filepath.Join(s.large(), path.Base(r.URL.Path)))
		return
	}
	var batch struct {
		Operation string      `json:"operation"`
		Objects   []lfsObject `json:"objects"`
	}
	if err := json.NewDecoder(r.Body).Decode(&batch); err != nil || batch.Operation != "download" {
		http.Error(w, "only downloads are offered", http.StatusUnprocessableEntity)
		return
	}
	repository, _, _ := strings.Cut(r.URL.Path, "/info/lfs/")
	for i := range batch.Objects {
		o := &batch.Objects[i]
		o.Actions = map[string]lfsAction{"download": {Href: "http://" + r.Host + repository + "/gitlab-lfs/" + path.Base(o.OID)}}
	}
	w.Header().Set("Content-Type", lfsType)
	_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": batch.Objects})
}
