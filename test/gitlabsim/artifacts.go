package gitlabsim

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// archive is the type of artifacts that other jobs download.
const archive = "archive"

// artifactFile is one uploaded file.
type artifactFile struct {
	path, name, format, expireIn string
	size                         int64
}

// Artifact returns an uploaded file, of type archive, metadata, junit..., and
// whether there is one.
func (j *Job) Artifact(kind string) ([]byte, bool, error) {
	j.mu.Lock()
	file, ok := j.artifacts[kind]
	j.mu.Unlock()
	if !ok {
		return nil, false, nil
	}
	content, err := os.ReadFile(file.path)
	return content, true, err
}

func (j *Job) archive() (artifactFile, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	file, ok := j.artifacts[archive]
	return file, ok
}

// authorizeArtifacts is POST /api/v4/jobs/:id/artifacts/authorize, which
// runners call only through Workhorse.
func (s *Server) authorizeArtifacts(w http.ResponseWriter, r *http.Request) {
	if s.runningJob(w, r, jobToken(r)) == nil {
		return
	}
	size, _ := strconv.ParseInt(r.URL.Query().Get("filesize"), 10, 64)
	if s.opts.ArtifactLimit > 0 && size > s.opts.ArtifactLimit {
		message(w, http.StatusRequestEntityTooLarge, "413 Request Entity Too Large")
		return
	}
	reply(w, http.StatusOK, struct{}{})
}

// errTooLarge is an upload above the limit.
var errTooLarge = errors.New("too large")

// uploadArtifacts is POST /api/v4/jobs/:id/artifacts: a form with the file and
// its type, format and expiry as parameters.
func (s *Server) uploadArtifacts(w http.ResponseWriter, r *http.Request) {
	job := s.runningJob(w, r, jobToken(r))
	if job == nil {
		return
	}
	query := r.URL.Query()
	kind, format := query.Get("artifact_type"), query.Get("artifact_format")
	if kind == "" {
		kind = archive
	}
	if format == "" {
		format = "zip"
	}
	file, err := s.storeUpload(r)
	switch {
	case errors.Is(err, errTooLarge):
		message(w, http.StatusRequestEntityTooLarge, "413 Request Entity Too Large")
		return
	case err != nil:
		message(w, http.StatusBadRequest, "400 Bad request: "+err.Error())
		return
	}
	file.format, file.expireIn = format, query.Get("expire_in")
	job.mu.Lock()
	_, taken := job.artifacts[kind]
	if !taken {
		job.artifacts[kind] = file
	}
	job.mu.Unlock()
	if taken {
		message(w, http.StatusBadRequest, "400 Bad request - another artifact of the same type already exists")
		return
	}
	message(w, http.StatusCreated, "201 Created")
}

// storeUpload writes the form's file to disk as it arrives.
func (s *Server) storeUpload(r *http.Request) (artifactFile, error) {
	form, err := r.MultipartReader()
	if err != nil {
		return artifactFile{}, fmt.Errorf("read form: %w", err)
	}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return artifactFile{}, errors.New("file is missing")
		}
		if err != nil {
			return artifactFile{}, fmt.Errorf("read form: %w", err)
		}
		if part.FormName() == "file" {
			return s.storePart(part)
		}
	}
}

func (s *Server) storePart(part *multipart.Part) (artifactFile, error) {
	dir := filepath.Join(s.dir, "artifacts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return artifactFile{}, fmt.Errorf("make artifact directory: %w", err)
	}
	f, err := os.CreateTemp(dir, "artifact-")
	if err != nil {
		return artifactFile{}, fmt.Errorf("make artifact: %w", err)
	}
	defer f.Close()
	var source io.Reader = part
	if s.opts.ArtifactLimit > 0 {
		source = io.LimitReader(part, s.opts.ArtifactLimit+1)
	}
	size, err := io.Copy(f, source)
	if err == nil && s.opts.ArtifactLimit > 0 && size > s.opts.ArtifactLimit {
		err = errTooLarge
	}
	if err != nil {
		return artifactFile{}, errors.Join(err, os.Remove(f.Name()))
	}
	return artifactFile{path: f.Name(), name: part.FileName(), size: size}, f.Close()
}

// downloadArtifacts is GET /api/v4/jobs/:id/artifacts, for the job itself and
// for jobs that depend on it.
func (s *Server) downloadArtifacts(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	job, asking := s.job(id), s.jobByToken(jobToken(r))
	if job == nil || asking == nil || !asking.mayDownload(job) {
		forbidden(w, "")
		return
	}
	file, ok := job.archive()
	if !ok {
		notFound(w, r)
		return
	}
	if s.opts.DirectDownload && r.URL.Query().Get("direct_download") == "true" {
		http.Redirect(w, r, s.url+"/-/objects/"+s.addObject(file.path), http.StatusFound)
		return
	}
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", file.name))
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeFile(w, r, file.path)
}

func (j *Job) mayDownload(other *Job) bool {
	return j == other || j.alive() && slices.Contains(j.spec.Dependencies, other)
}

func (s *Server) addObject(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := randomHex(16)
	s.objects[name] = path
	return name
}

// downloadObject plays the object storage: no token, but a name nobody guesses.
func (s *Server) downloadObject(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	path := s.objects[r.PathValue("name")]
	s.mu.Unlock()
	if path == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeFile(w, r, path)
}
