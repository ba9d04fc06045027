package gitlabsim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// traceLog is a job's log on disk, with its checksums so far.
type traceLog struct {
	path string

	mu   sync.Mutex
	size int64
	crc  uint32
	sha  hash.Hash
}

func newTraceLog(dir string, job int64) (*traceLog, error) {
	path := filepath.Join(dir, "traces", strconv.FormatInt(job, 10)+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		return nil, fmt.Errorf("make log: %w", err)
	}
	return &traceLog{path: path, sha: sha256.New()}, nil
}

// append adds content at offset and returns the log's size. Where offset isn't
// the end of the log, nothing is added.
func (t *traceLog) append(content []byte, offset int64) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if offset != t.size {
		return t.size, nil
	}
	f, err := os.OpenFile(t.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return t.size, fmt.Errorf("open log: %w", err)
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return t.size, fmt.Errorf("write log: %w", err)
	}
	t.size += int64(len(content))
	t.crc = crc32.Update(t.crc, crc32.IEEETable, content)
	t.sha.Write(content)
	return t.size, f.Close()
}

// read returns the log from offset on.
func (t *traceLog) read(offset int64) ([]byte, error) {
	f, err := os.Open(t.path)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	t.mu.Lock()
	size := t.size
	t.mu.Unlock()
	content := make([]byte, size-offset)
	if _, err := io.ReadFull(io.NewSectionReader(f, offset, size-offset), content); err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return content, nil
}

// sum returns the size in bytes and the SHA-256 in hexadecimal.
func (t *traceLog) sum() (int64, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size, hex.EncodeToString(t.sha.Sum(nil))
}

// matches compares with a runner's checksum, crc32:0123abcd
// (gitlab-runner helpers/trace/buffer.go, Checksum), and size. A runner that
// sends none is believed.
func (t *traceLog) matches(checksum string, size int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return (checksum == "" || checksum == fmt.Sprintf("crc32:%08x", t.crc)) && (size == 0 || size == t.size)
}
