package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"podlane/cacheclient/store"
	"podlane/cacheclient/transfer"
	"podlane/podagent"
)

// signedFor is how long URLs live: longer than any run.
const signedFor = 30 * time.Minute

// measurement is one data set on one file system.
type measurement struct {
	*bench
	data    *dataset
	target  string
	place   string // for what runs create
	source  string // the data set, on the file system that is measured
	object  store.Object
	print   string // fingerprint of the tree
	created int
}

// result is one run.
type result struct {
	wall, cpu float64
	rss       int64   // KiB
	first     float64 // seconds from the start to the first file, of podlane only
	server    float64 // CPU seconds of the S3 server meanwhile
}

// fresh makes a folder for a run.
func (m *measurement) fresh() (string, error) {
	m.created++
	dir := filepath.Join(m.place, fmt.Sprintf("run%03d", m.created))
	return dir, os.Mkdir(dir, 0o755)
}

// done takes a run's tree away, unless that would slow later runs down.
func (m *measurement) done(dir string) error {
	if m.target != "tmpfs" {
		return nil
	}
	return os.RemoveAll(dir)
}

// process runs a subject.
func (m *measurement) process(ctx context.Context, procs int, name string, args ...string) (result, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = os.Environ() //nolint:forbidigo // the program's own
	if procs > 0 {
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+strconv.Itoa(procs))
	}
	// The runner's helper has its temporary files on the disk that builds are on.
	cmd.Env = append(cmd.Env, "TMPDIR="+m.place)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	forgetPeak()
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if err != nil {
		return result{}, fmt.Errorf("%s %s: %w\n%s", name, args[0], err, stderr.Bytes())
	}
	r := usage(cmd.ProcessState, wall)
	var o own
	if out.Len() > 0 && json.Unmarshal(out.Bytes(), &o) == nil {
		r.wall, r.cpu = o.Wall, o.CPU
	}
	return r, nil
}

// forgetPeak lets the most memory that this process has had begin anew: a child's
// begins at its parent's (fs/exec.c, setmax_mm_hiwater_rss), and data sets are big.
func forgetPeak() {
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

func usage(p *os.ProcessState, wall time.Duration) result {
	r := result{wall: wall.Seconds(), cpu: (p.UserTime() + p.SystemTime()).Seconds()}
	if u, ok := p.SysUsage().(*syscall.Rusage); ok {
		r.rss = u.Maxrss
	}
	return r
}

// saves measures op save and its quick ways out, and leaves the objects that
// restores need.
func (m *measurement) saves(ctx context.Context) error {
	for range m.runs {
		for _, subject := range m.chosen("podlane", "zip", "tar") {
			before := m.server.cpu()
			r, err := m.save(ctx, subject)
			if err != nil {
				return fmt.Errorf("save by %s: %w", subject, err)
			}
			r.server = m.server.cpu() - before
			m.add("save", subject, way{}, r)
		}
		r, err := m.process(ctx, 0, m.self, "lookup", m.bucket.encode(), m.object.Name)
		if err != nil {
			return err
		}
		m.add("save-exists", "podlane", way{}, r)
		if r, err = m.unchanged(ctx); err != nil {
			return err
		}
		m.add("save-unchanged", "podlane", way{}, r)
	}
	return nil
}

// chosen are those of the subjects that are to be measured.
func (m *measurement) chosen(subjects ...string) []string {
	all := strings.Split(m.subjects, ",")
	return slices.DeleteFunc(subjects, func(s string) bool { return !slices.Contains(all, s) })
}

func (m *measurement) add(op, subject string, w way, r result) {
	row := m.rowFor(rowKey{Dataset: m.data.name, Target: m.target, Op: op, Subject: subject}, w)
	row.Bytes, row.Files = m.data.bytes, m.data.files
	row.results = append(row.results, r)
	fmt.Fprintf(m.out, "%-6s %-5s %-14s %-12s %-18s %7.3f s %7.3f cpu-s %5d MB\n", m.data.name, m.target, op, subject, w, r.wall, r.cpu, r.rss>>10)
}

func (m *measurement) save(ctx context.Context, subject string) (result, error) {
	object := "bench/" + m.data.name + "/" + subject
	switch subject {
	case "zip":
		u, err := m.bucket.signed(ctx, http.MethodPut, object)
		if err != nil {
			return result{}, err
		}
		return m.process(ctx, 0, m.zip, "save", m.source, u)
	case "tar":
		return m.process(ctx, 0, m.self, "tar-save", m.source, m.bucket.encode(), object)
	}
	return m.savePodlane(ctx, object)
}

// savePodlane is podlane's own way, with this program in the place of
// `podlane run`: it signs, the helper moves, it completes.
func (m *measurement) savePodlane(ctx context.Context, object string) (result, error) {
	s, err := m.bucket.open(ctx)
	if err != nil {
		return result{}, err
	}
	defer s.Close()
	var upload store.Upload
	var saved *podagent.SaveResult
	r, err := m.session(ctx, m.source, 0, func(ctx context.Context, session *podagent.CacheSession) error {
		if upload, err = s.CreateUpload(ctx, object, store.Meta{Key: m.data.name}); err != nil {
			return err
		}
		done, err := session.Do(ctx, podagent.CacheOrder{Save: &podagent.SaveOrder{Paths: []string{m.data.path}}}, func(ctx context.Context, ask podagent.CacheAsk) podagent.CacheAnswer {
			signed, err := s.SignPart(ctx, upload, ask.Part.Number, ask.Part.Size, signedFor)
			return answer(signed, err)
		}, nil)
		if err != nil {
			return err
		}
		saved = done.Save
		var parts []transfer.Done
		for _, p := range saved.Parts {
			parts = append(parts, transfer.Done{Number: p.Number, ETag: p.ETag, Size: p.Size})
		}
		_, err = s.Complete(ctx, upload, parts, store.Replace)
		return err
	})
	if err != nil {
		return r, err
	}
	m.print = saved.Fingerprint
	m.object, err = s.Head(ctx, object)
	return r, err
}

func (m *measurement) unchanged(ctx context.Context) (result, error) {
	return m.session(ctx, m.source, 0, func(ctx context.Context, session *podagent.CacheSession) error {
		done, err := session.Do(ctx, podagent.CacheOrder{Save: &podagent.SaveOrder{Paths: []string{m.data.path}, Unless: m.print}},
			func(context.Context, podagent.CacheAsk) podagent.CacheAnswer {
				return podagent.CacheAnswer{Error: "nothing is to be sent"}
			}, nil)
		if err == nil && !done.Save.Unchanged {
			err = errors.New("the tree was found changed")
		}
		return err
	})
}

// restores measures op restore, subjects in turn so that they share what else
// the machine does.
func (m *measurement) restores(ctx context.Context, net string, procs int, subjects []string) error {
	for i := range m.runs {
		for _, subject := range m.chosen(subjects...) {
			dir, err := m.fresh()
			if err != nil {
				return err
			}
			before := m.server.cpu()
			r, err := m.restore(ctx, subject, dir, net, procs)
			if err != nil {
				return fmt.Errorf("restore by %s: %w", subject, err)
			}
			r.server = m.server.cpu() - before
			if subject == "podlane" && i == 0 {
				if err := m.verify(ctx, dir); err != nil {
					return err
				}
			}
			if err := m.done(dir); err != nil {
				return err
			}
			m.add("restore", subject, way{net, procs}, r)
		}
	}
	return nil
}

func (m *measurement) restore(ctx context.Context, subject, dir, net string, procs int) (result, error) {
	bucket := m.bucket
	for _, p := range m.server.proxies {
		if p.name == net {
			bucket = bucket.at(p.endpoint)
		}
	}
	switch subject {
	case "floor", "floor+decode":
		return m.process(ctx, procs, m.self, subject, m.source, dir)
	case "podlane":
		return m.restorePodlane(ctx, bucket, dir, procs)
	}
	u, err := bucket.signed(ctx, http.MethodGet, "bench/"+m.data.name+"/"+subject)
	if err != nil {
		return result{}, err
	}
	if subject == "zip" {
		return m.process(ctx, procs, m.zip, "restore", dir, u)
	}
	return m.process(ctx, procs, m.self, "tar-restore", dir, u)
}

func (m *measurement) restorePodlane(ctx context.Context, b bucket, dir string, procs int) (result, error) {
	s, err := b.open(ctx)
	if err != nil {
		return result{}, err
	}
	defer s.Close()
	began := time.Now()
	var first time.Duration
	r, err := m.session(ctx, dir, procs, func(ctx context.Context, session *podagent.CacheSession) error {
		object, err := s.Head(ctx, m.object.Name)
		if err != nil {
			return err
		}
		ordered := time.Since(began)
		done, err := session.Do(ctx, podagent.CacheOrder{Restore: &podagent.RestoreOrder{Size: object.Size, Paths: []string{m.data.path}}}, func(ctx context.Context, _ podagent.CacheAsk) podagent.CacheAnswer {
			signed, err := s.SignRead(ctx, object, signedFor)
			return answer(signed, err)
		}, nil)
		if err == nil {
			first = ordered + time.Duration(done.Restore.FirstFile)*time.Millisecond
		}
		return err
	})
	r.first = first.Seconds()
	return r, err
}

func answer(signed store.Signed, err error) podagent.CacheAnswer {
	if err != nil {
		return podagent.CacheAnswer{Error: err.Error()}
	}
	return podagent.CacheAnswer{URL: signed.URL.Reveal(), Header: signed.Header}
}

// verify compares what a restore made with the data set.
func (m *measurement) verify(ctx context.Context, dir string) error {
	return tool(ctx, "", "diff", "-r", "--no-dereference", filepath.Join(m.source, m.data.path), filepath.Join(dir, m.data.path))
}

// session runs the helper and measures from its start to its end.
func (m *measurement) session(ctx context.Context, project string, procs int, do func(context.Context, *podagent.CacheSession) error) (result, error) {
	state, err := os.MkdirTemp("", "bench-helper")
	if err != nil {
		return result{}, err
	}
	defer os.RemoveAll(state)
	cmd := exec.CommandContext(ctx, m.helper, "cache")
	cmd.Env = append(os.Environ(), "PODLANE_HELPER_ROOT="+state) //nolint:forbidigo // the program's own
	if procs > 0 {
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+strconv.Itoa(procs))
	}
	connect := func(_ context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(in, stdin)
			in.Close()
		}()
		cmd.Stdout, cmd.Stderr = stdout, stderr
		return cmd.Run()
	}
	forgetPeak()
	began := time.Now()
	session, err := podagent.OpenCache(ctx, connect, podagent.CacheHeader{Project: project})
	if err != nil {
		return result{}, err
	}
	err = do(ctx, session)
	if e := session.Close(); err == nil {
		err = e
	}
	if err != nil {
		return result{}, err
	}
	return usage(cmd.ProcessState, time.Since(began)), nil
}
