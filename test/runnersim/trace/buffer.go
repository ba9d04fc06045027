// Package trace is a job's log on its way to GitLab: masked, kept in a file,
// and sent piece by piece with the job's state.
package trace

import (
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// Buffer keeps a whole log in a file without a name, so that GitLab can ask for
// any part of it again. Unlike the runner's it keeps every byte: the runner
// replaces what isn't UTF-8 (gitlab-runner helpers/trace/buffer.go, New).
type Buffer struct {
	mu   sync.Mutex
	file *os.File
	size int64
	sum  hash.Hash32
}

// NewBuffer makes a buffer in dir, or the system's place for temporary files
// if dir is empty.
func NewBuffer(dir string) (*Buffer, error) {
	file, err := os.CreateTemp(dir, "trace")
	if err != nil {
		return nil, fmt.Errorf("create trace buffer: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, fmt.Errorf("unlink trace buffer: %w", err)
	}
	return &Buffer{file: file, sum: crc32.NewIEEE()}, nil
}

// Write appends to the log.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, err := b.file.WriteAt(p, b.size)
	b.size += int64(n)
	b.sum.Write(p[:n])
	return n, err
}

// Read returns up to limit bytes from offset on.
func (b *Buffer) Read(offset int64, limit int) ([]byte, error) {
	size := b.Size()
	if offset < 0 || offset > size {
		return nil, fmt.Errorf("read trace buffer: offset %d is not within its %d bytes", offset, size)
	}
	part := make([]byte, min(int64(limit), size-offset))
	if _, err := b.file.ReadAt(part, offset); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read trace buffer: %w", err)
	}
	return part, nil
}

// Size is the log's length in bytes.
func (b *Buffer) Size() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size
}

// Checksum is the log's, in the form GitLab expects.
func (b *Buffer) Checksum() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("crc32:%08x", b.sum.Sum32())
}

// Close frees the file.
func (b *Buffer) Close() error { return b.file.Close() }
