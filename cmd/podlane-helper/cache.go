package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"podlane/cacheclient/archive"
	"podlane/cacheclient/match"
	"podlane/cacheclient/transfer"
	"podlane/internal/joblog"
	"podlane/internal/redact"
	"podlane/internal/version"
	"podlane/podagent"
)

// cache serves one cache session: see podagent/cacheprotocol.go.
func (p *program) cache(args []string) error {
	if err := parse(flags("cache"), args, 0); err != nil {
		return err
	}
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // nobody has set GOMEMLIMIT
		debug.SetMemoryLimit(memoryLimit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	server := &podagent.CacheServer{Layout: p.layout, Worker: cacheWorker{}}
	return server.Serve(ctx, p.stdin, p.stdout)
}

// memoryLimit is where garbage collection stops waiting for the heap to double:
// with the program itself, 128 MiB hold a session. Buffers take 60 MiB with two
// processors, the names of 100,000 files 10. A save of node_modules runs as fast
// as without it.
const memoryLimit = 96 << 20

// makeRoom raises the limit for a list of names that would fill it: collecting
// garbage all the time wins nothing.
func makeRoom(at podagent.CachePlace, names []string) {
	const few = 200_000
	if limit := debug.SetMemoryLimit(-1); limit == memoryLimit && len(names) > few {
		for _, name := range names[few:] {
			limit += int64(len(name)) + 64 // with its place in lists and in the index
		}
		debug.SetMemoryLimit(min(limit, ownMemory(at)))
	}
}

// ownMemory is how much of the container's memory garbage may fill before it is
// collected: it must not be what ends the container.
func ownMemory(at podagent.CachePlace) int64 {
	if at.Memory <= 0 {
		return math.MaxInt64
	}
	return int64(at.Memory) * 3 / 4
}

// cacheWorker brings archives, transfers and the session together.
type cacheWorker struct{}

var _ podagent.CacheWorker = cacheWorker{}

// journal names what a restore is about to create, for whoever comes after a
// kill. It is there while a restore is under way, and no longer.
func journal(at podagent.CachePlace) string { return filepath.Join(at.State, "journal") }

// Undo implements podagent.CacheWorker.
func (cacheWorker) Undo(_ context.Context, at podagent.CachePlace) (int, error) {
	text, err := os.ReadFile(journal(at))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	created, err := archive.DecodeJournal(text)
	if err != nil {
		// Written in part: the restore had not begun.
		return 0, os.Remove(journal(at))
	}
	if err := archive.Remove(at.Project, created); err != nil {
		return 0, err
	}
	return len(created), os.Remove(journal(at))
}

// Do implements podagent.CacheWorker.
func (w cacheWorker) Do(ctx context.Context, at podagent.CachePlace, order podagent.CacheOrder, link podagent.CacheLink) (done podagent.CacheDone, err error) {
	if own := ownMemory(at); own < debug.SetMemoryLimit(-1) {
		debug.SetMemoryLimit(own)
	}
	switch {
	case order.Lockfiles != nil:
		done.Lockfiles, err = lockfiles(ctx, at, order.Lockfiles)
	case order.Restore != nil:
		done.Restore, err = w.restore(ctx, at, order.Restore, link)
	case order.Save != nil:
		done.Save, err = w.save(ctx, at, order.Save, link)
	default:
		err = errors.New("an order that this podlane-helper does not know: it is older than podlane")
	}
	return done, err
}

// lockfiles reads what the globs of each variable match.
func lockfiles(ctx context.Context, at podagent.CachePlace, o *podagent.LockfilesOrder) (*podagent.LockfilesResult, error) {
	result := &podagent.LockfilesResult{Files: map[string][]podagent.LockfileSum{}}
	for name, globs := range o.Globs {
		found, notes, err := match.Lockfiles(ctx, at.Project, globs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for _, file := range found {
			result.Files[name] = append(result.Files[name], podagent.LockfileSum{Path: file.Path, Sum: hex.EncodeToString(file.Sum[:])})
		}
		for _, note := range notes {
			result.Notes = append(result.Notes, name+": "+note)
		}
	}
	return result, nil
}

// newClient returns a client for the S3 server that tells what it tries again.
func newClient(at podagent.CachePlace, link podagent.CacheLink) (*transfer.Client, error) {
	config := transfer.Config{
		Proxy:     http.ProxyFromEnvironment,
		UserAgent: "podlane-helper/" + version.String(),
		Notify: func(format string, args ...any) {
			link.Progress(podagent.CacheProgress{Note: fmt.Sprintf(format, args...)})
		},
	}
	if at.CAs != "" {
		config.CAs = x509.NewCertPool()
		if !config.CAs.AppendCertsFromPEM([]byte(at.CAs)) {
			return nil, errors.New("cache.ca_file holds no certificate")
		}
	}
	return transfer.New(config), nil
}

// signer asks the other end of the session for presigned requests.
type signer struct{ link podagent.CacheLink }

var _ transfer.Signer = signer{}

// Read implements transfer.Signer.
func (s signer) Read(ctx context.Context, renew bool) (transfer.Request, error) {
	return s.ask(ctx, podagent.CacheAsk{Read: &podagent.ReadAsk{Renew: renew}})
}

// Part implements transfer.Signer.
func (s signer) Part(ctx context.Context, number int, size int64, renew bool) (transfer.Request, error) {
	return s.ask(ctx, podagent.CacheAsk{Part: &podagent.PartAsk{Number: number, Size: size, Renew: renew}})
}

func (s signer) ask(ctx context.Context, ask podagent.CacheAsk) (transfer.Request, error) {
	answer, err := s.link.Ask(ctx, ask)
	return transfer.Request{URL: redact.New(answer.URL), Header: answer.Header}, err
}

// restore unpacks an archive. Whatever goes wrong, the project is afterwards as
// it was before.
func (w cacheWorker) restore(ctx context.Context, at podagent.CachePlace, o *podagent.RestoreOrder, link podagent.CacheLink) (*podagent.RestoreResult, error) {
	began := time.Now()
	client, err := newClient(at, link)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	reader := client.Reader(signer{link}, o.Size)
	index, err := readIndex(ctx, reader, o)
	allow := match.Allow(at.Project, match.Selection{Paths: o.Paths, Untracked: o.Untracked})
	var lost []string
	if err == nil && o.Other {
		index, lost, err = index.Only(allow)
	}
	if err != nil {
		return nil, coded(err)
	}
	if bytes := index.Summary().Bytes; at.Memory > 0 && bytes > int64(at.Memory) && inMemory(at.Project) {
		return nil, fmt.Errorf("its %s don't fit into the helper container's %s of memory, where the project lies; hint: resources.helper.memory_limit", joblog.Size(bytes), at.Memory)
	}
	var progress archive.Progress
	stop := report(ctx, &progress, link)
	defer stop()
	var created []string
	indexed := time.Since(began)
	timer := &transferTimer{began: began, fetch: reader.Fetch}
	summary, err := archive.Restore(ctx, at.Project, index, timer.Fetch, archive.RestoreOptions{
		Progress: &progress, Memory: int64(at.Memory),
		Allow: allow,
		Begin: func(paths []string) error {
			created = paths
			return os.WriteFile(journal(at), archive.EncodeJournal(paths), 0o600)
		},
	})
	if err != nil {
		// Restore has taken it back already, unless that failed, too.
		if undo := archive.Remove(at.Project, created); undo != nil {
			return nil, fmt.Errorf("%w; and what it had created can't be removed: %w", err, undo)
		}
	}
	if gone := os.Remove(journal(at)); gone != nil && !errors.Is(gone, os.ErrNotExist) && err == nil {
		err = gone
	}
	if err != nil {
		return nil, coded(err)
	}
	summary.FirstFile += indexed
	result := &podagent.RestoreResult{
		CacheTree: tree(summary, began), Transferred: time.Duration(timer.last.Load()), Extracting: summary.FirstFile,
	}
	if len(lost) > 0 {
		result.Notes = []string{fmt.Sprintf("without %s, hard links whose files are none of the paths", joblog.Few(lost))}
	}
	return result, nil
}

// transferTimer notes when the last of what is fetched has come.
type transferTimer struct {
	began time.Time
	fetch archive.Fetch
	last  atomic.Int64 // nanoseconds since began
}

// Fetch is an archive.Fetch.
func (t *transferTimer) Fetch(ctx context.Context, offset, n int64) (io.ReadCloser, error) {
	body, err := t.fetch(ctx, offset, n)
	if err != nil {
		return nil, err
	}
	return timedBody{body, t}, nil
}

type timedBody struct {
	io.ReadCloser
	timer *transferTimer
}

// Close implements io.Closer.
func (b timedBody) Close() error {
	b.timer.last.Store(int64(time.Since(b.timer.began)))
	return b.ReadCloser.Close()
}

// inMemory reports whether what is written to a folder stays in memory.
func inMemory(folder string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(folder, &fs) == nil && fs.Type == unix.TMPFS_MAGIC
}

// readIndex fetches the end of an archive, as much of it as it takes.
func readIndex(ctx context.Context, reader *transfer.Reader, o *podagent.RestoreOrder) (*archive.Index, error) {
	need := archive.TailSize(o.Size)
	for {
		tail, err := fetch(ctx, reader, o.Size-need, need)
		if err != nil {
			return nil, err
		}
		index, err := archive.ReadIndex(tail, o.Size, limits(o.Limits))
		var short *archive.ShortTailError
		switch {
		case errors.As(err, &short) && short.Need > need && short.Need <= o.Size:
			need = short.Need
			continue
		case err != nil:
			return nil, err
		case o.Digest != "" && index.Summary().Digest != o.Digest:
			return nil, fmt.Errorf("%w: its index is not the one that was saved", archive.ErrFormat)
		}
		return index, nil
	}
}

func fetch(ctx context.Context, reader *transfer.Reader, offset, n int64) ([]byte, error) {
	body, err := reader.Fetch(ctx, offset, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data := make([]byte, n)
	_, err = io.ReadFull(body, data)
	return data, err
}

// save packs the cache's files and sends them.
func (w cacheWorker) save(ctx context.Context, at podagent.CachePlace, o *podagent.SaveOrder, link podagent.CacheLink) (*podagent.SaveResult, error) {
	began := time.Now()
	found, err := match.Find(ctx, at.Project, match.Selection{Paths: o.Paths, Untracked: o.Untracked})
	if err != nil {
		return nil, err
	}
	if len(found.Paths) == 0 {
		return &podagent.SaveResult{Empty: true, Notes: found.Notes}, nil
	}
	makeRoom(at, found.Paths)
	if o.Unless != "" {
		fingerprint, err := archive.Fingerprint(ctx, at.Project, found.Paths)
		if err != nil {
			return nil, err
		}
		if fingerprint == o.Unless {
			return &podagent.SaveResult{Unchanged: true, CacheTree: podagent.CacheTree{Entries: len(found.Paths), Fingerprint: fingerprint, Millis: time.Since(began).Milliseconds()}}, nil
		}
	}
	client, err := newClient(at, link)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	uploader := client.Uploader(signer{link})
	var progress archive.Progress
	stop := report(ctx, &progress, link)
	defer stop()
	summary, err := archive.Write(ctx, at.Project, found.Paths, uploader, archive.WriteOptions{Limits: limits(o.Limits), Memory: int64(at.Memory), Progress: &progress})
	if errors.Is(err, archive.ErrEmpty) {
		return &podagent.SaveResult{Empty: true, Notes: found.Notes}, nil
	}
	if err != nil {
		return nil, coded(err)
	}
	result := &podagent.SaveResult{CacheTree: tree(summary, began), Notes: found.Notes}
	for _, part := range uploader.Done() {
		result.Parts = append(result.Parts, podagent.CachePart{Number: part.Number, Size: part.Size, ETag: part.ETag})
	}
	return result, nil
}

func limits(l podagent.CacheLimits) archive.Limits {
	return archive.Limits{Entries: l.Files, Bytes: l.Bytes}
}

func tree(s archive.Summary, began time.Time) podagent.CacheTree {
	return podagent.CacheTree{
		Entries: s.Entries, Files: s.Files, Bytes: s.Bytes, Size: s.Size, Digest: s.Digest, Fingerprint: s.Fingerprint,
		Skipped: s.Skipped, Millis: time.Since(began).Milliseconds(), FirstFile: s.FirstFile.Milliseconds(),
	}
}

// progressPause lies between two reports.
const progressPause = 5 * time.Second

// report tells how far things are until it is stopped.
func report(ctx context.Context, progress *archive.Progress, link podagent.CacheLink) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(progressPause)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				link.Progress(podagent.CacheProgress{Files: progress.Files.Load(), Bytes: progress.Bytes.Load(), Wire: progress.Wire.Load()})
			}
		}
	}()
	return func() {
		cancel()
		<-over
	}
}

// coded gives errors that the other end tells apart their kind.
func coded(err error) error {
	code := podagent.CacheFailed
	switch {
	case errors.Is(err, archive.ErrOther):
		code = podagent.CacheOther
	case errors.Is(err, archive.ErrFormat), errors.Is(err, archive.ErrLimit):
		code = podagent.CacheDamaged
	case errors.Is(err, transfer.ErrChanged), errors.Is(err, transfer.ErrGone):
		code = podagent.CacheGone
	}
	return &podagent.CacheError{Code: code, Reason: strings.TrimSpace(err.Error())}
}
