package podagent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
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

// helper is the real program; sessions are real processes behind real pipes.
var helper string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "podagent")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	helper = filepath.Join(dir, "podlane-helper")
	build := exec.Command("go", "build", "-o", helper, "podlane/cmd/podlane-helper")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build podlane-helper: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// box is one container, as far as podlane-helper can tell.
type box struct {
	t    *testing.T
	root string
	env  []string
	// prefix runs a command in the container, if it has one.
	prefix []string
}

func newBox(t *testing.T) *box {
	t.Helper()
	root := t.TempDir()
	// The build user of some tests must be able to walk here.
	for dir := root; strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"shared", "state"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(root, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return &box{t: t, root: root, env: append(os.Environ(), "PODLANE_HELPER_ROOT="+root)}
}

func (b *box) layout() Layout {
	return Layout{Shared: filepath.Join(b.root, "shared"), State: filepath.Join(b.root, "state")}
}

func (b *box) command(args ...string) *exec.Cmd {
	return b.commandContext(b.t.Context(), args...)
}

func (b *box) commandContext(ctx context.Context, args ...string) *exec.Cmd {
	argv := slices.Concat(b.prefix, []string{helper}, args)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = b.env
	return cmd
}

// connect is a Session: a process in the place of an exec stream.
func (b *box) connect(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	return b.session(ctx, stdin, stdout, stderr, nil)
}

func (b *box) session(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, started func(*os.Process)) error {
	cmd := b.commandContext(ctx, "run")
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	if started != nil {
		started(cmd.Process)
	}
	go func() {
		_, _ = io.Copy(in, stdin)
		in.Close()
	}()
	return cmd.Wait()
}

func (b *box) follower(out io.Writer) *Follower {
	return &Follower{Connect: b.connect, Output: out, Notify: func(string, ...any) {}, Budget: time.Minute}
}

// run runs a script as a stage and returns its record and output.
func (b *box) run(stage, script string) (*ExitRecord, string, error) {
	b.t.Helper()
	var out bytes.Buffer
	record, err := b.follower(&out).Run(b.t.Context(), Header{Stage: stage, GraceSeconds: 1}, []byte(script))
	return record, out.String(), err
}

func TestScript(t *testing.T) {
	tests := []struct {
		name, script string
		code         int
		signal       string
		output       string
	}{
		{"success", "echo hello", 0, "", "hello\n"},
		{"exit code", "echo before; exit 37", 37, "", "before\n"},
		{"no newline at the end", "printf 'no newline'", 0, "", "no newline"},
		{"nothing at all", "", 0, "", ""},
		{"both streams in order", "echo out; echo err >&2; echo out", 0, "", "out\nerr\nout\n"},
		{"stderr opened anew cuts nothing off", "echo one; echo two > /dev/stderr; echo three > /dev/stdout", 0, "", "one\ntwo\nthree\n"},
		{"no input", "cat; echo end", 0, "", "end\n"},
		{"ended by a signal", "echo x; kill -SEGV $$", 139, "SIGSEGV", "x\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			record, output, err := newBox(t).run("stage", tt.script)
			if err != nil {
				t.Fatal(err)
			}
			if record.Code != tt.code || record.Signal != tt.signal {
				t.Errorf("ended with code %d, signal %q; want %d, %q", record.Code, record.Signal, tt.code, tt.signal)
			}
			if output != tt.output {
				t.Errorf("output is %q, want %q", output, tt.output)
			}
		})
	}
}

// payload writes a file of random bytes: as output it has every byte value, and
// lines of any length.
func payload(t *testing.T, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestOutputIsByteExact(t *testing.T) {
	file, want := payload(t, 50<<20)
	_, got, err := newBox(t).run("stage", "cat "+file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal([]byte(got), want) {
		t.Errorf("got %d bytes that differ from the %d written", len(got), len(want))
	}
}

// The stream breaks again and again while the script writes: every byte comes
// once, and the script runs once.
func TestBrokenStreamsLoseNothing(t *testing.T) {
	b := newBox(t)
	file, want := payload(t, 4<<20)
	count := filepath.Join(b.root, "count")
	enough := filepath.Join(b.root, "enough")
	script := fmt.Sprintf("echo run >> %s; for i in 1 2 3 4 5 6 7 8; do dd if=%s bs=512k skip=$((i-1)) count=1 2>/dev/null; sleep 0.1; done; until [ -e %s ]; do sleep 0.05; done; exit 5", count, file, enough)
	sessions := 0
	var out bytes.Buffer
	follower := b.follower(&out)
	follower.Connect = func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
		sessions++
		if sessions == 8 {
			if err := os.WriteFile(enough, nil, 0o600); err != nil {
				t.Error(err)
			}
		}
		life := time.Duration(sessions*13%90) * time.Millisecond
		if sessions > 50 {
			life *= 100 // a busy machine needs more for a single byte
		}
		return b.session(ctx, stdin, stdout, stderr, func(p *os.Process) {
			time.AfterFunc(life, func() { _ = p.Kill() })
		})
	}
	record, err := follower.Run(t.Context(), Header{Stage: "stage"}, []byte(script))
	if err != nil {
		t.Fatal(err)
	}
	if record.Code != 5 || !bytes.Equal(out.Bytes(), want) {
		t.Errorf("code %d, %d bytes; want 5 and exactly the %d written", record.Code, out.Len(), len(want))
	}
	if runs, _ := os.ReadFile(count); string(runs) != "run\n" {
		t.Errorf("the script ran %d times", bytes.Count(runs, []byte("\n")))
	}
}

func TestTwoSessionsStartOnce(t *testing.T) {
	b := newBox(t)
	count := filepath.Join(b.root, "count")
	script := fmt.Sprintf("echo run >> %s; echo output; sleep 0.2; exit 3", count)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			record, output, err := b.run("stage", script)
			if err != nil || record.Code != 3 || output != "output\n" {
				t.Errorf("got %v, %q, %v", record, output, err)
			}
		})
	}
	wg.Wait()
	if runs, _ := os.ReadFile(count); string(runs) != "run\n" {
		t.Errorf("the script ran %d times", bytes.Count(runs, []byte("\n")))
	}
}

// A session that dies with half the script on disk has started nothing.
func TestHalfASpooledScriptIsNotRun(t *testing.T) {
	b := newBox(t)
	script := "echo whole; exit 4"
	line, err := EncodeHeader(Header{Stage: "stage", ScriptBytes: int64(len(script))})
	if err != nil {
		t.Fatal(err)
	}
	var events bytes.Buffer
	_ = b.connect(t.Context(), io.MultiReader(bytes.NewReader(line), strings.NewReader(script[:10])), io.Discard, &events)
	if !strings.Contains(events.String(), "got 10 of 18 bytes") {
		t.Errorf("events are %s", events.String())
	}
	record, output, err := b.run("stage", script)
	if err != nil || record.Code != 4 || output != "whole\n" {
		t.Errorf("got %v, %q, %v", record, output, err)
	}
}

func TestDaemonDoesNotDelayTheEnd(t *testing.T) {
	b := newBox(t)
	pidFile := filepath.Join(b.root, "pid")
	record, output, err := b.run("stage", fmt.Sprintf("(while :; do echo noise; sleep 0.05; done) & echo $! > %s; echo mine", pidFile))
	if err != nil || record.Code != 0 || !strings.HasPrefix(strings.ReplaceAll(output, "noise\n", ""), "mine\n") {
		t.Fatalf("got %v, %q, %v", record, output, err)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	// It goes on writing to a pipe that somebody must still empty.
	time.Sleep(300 * time.Millisecond)
	if err := unix.Kill(pid, 0); err != nil {
		t.Error("the daemon died with the stage")
	}
}

func TestCancel(t *testing.T) {
	tests := []struct {
		name, script, output string
		grace, code          int
	}{
		{"a script that cleans up", `trap 'echo bye; exit 9' TERM; echo start; sleep 600 & wait`, "start\nbye\n", 60, 9},
		{"a script that does not listen", `trap '' TERM; echo start; while :; do sleep 0.1; done`, "start\n", 1, 137},
		{"children in the group", `echo start; sh -c 'sleep 600; echo late'`, "start\n", 60, 143},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			ctx, cancel := context.WithCancel(t.Context())
			var out bytes.Buffer
			record, err := b.follower(writerFunc(func(p []byte) (int, error) {
				cancel()
				return out.Write(p)
			})).Run(ctx, Header{Stage: "stage", GraceSeconds: tt.grace}, []byte(tt.script))
			if !errors.Is(err, ErrCancelled) {
				t.Fatalf("got %v", err)
			}
			if record == nil || record.Code != tt.code || !record.Cancelled {
				t.Errorf("record is %+v, want code %d", record, tt.code)
			}
			if out.String() != tt.output {
				t.Errorf("output is %q, want %q", out.String(), tt.output)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestKilledSupervisorIsNoSuccess(t *testing.T) {
	b := newBox(t)
	var once sync.Once
	var out bytes.Buffer
	_, err := b.follower(writerFunc(func(p []byte) (int, error) {
		once.Do(func() {
			text, err := os.ReadFile(b.layout().stage("stage").supervised())
			if err != nil {
				t.Error(err)
			}
			pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
			_ = unix.Kill(pid, unix.SIGKILL)
		})
		return out.Write(p)
	})).Run(t.Context(), Header{Stage: "stage"}, []byte("echo start; sleep 5"))
	var stage *StageError
	if !errors.As(err, &stage) || stage.Code != CodeLost {
		t.Fatalf("got %v, want a lost stage", err)
	}
	// Asking again does not start it again.
	if _, _, err := b.run("stage", "echo start; sleep 5"); !errors.As(err, &stage) || stage.Code != CodeLost {
		t.Errorf("the second time: %v", err)
	}
}

func TestNoShell(t *testing.T) {
	if _, err := findShell(t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "neither bash nor sh") {
		t.Errorf("got %v", err)
	}
	// kaniko has its shell in an odd place.
	odd := t.TempDir()
	if err := os.WriteFile(filepath.Join(odd, "sh"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if shell, err := findShell("/nowhere", []string{odd}); err != nil || shell != filepath.Join(odd, "sh") {
		t.Errorf("got %s, %v", shell, err)
	}
}

func TestScriptIsRemovedWhenItHasEnded(t *testing.T) {
	b := newBox(t)
	if _, _, err := b.run("stage", "echo secret"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.layout().stage("stage").script()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the script, which holds secrets, is still there: %v", err)
	}
}

func TestAsBuildUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	b := newBox(t)
	if err := os.WriteFile(b.layout().buildUser(), []byte("1234:2345\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	record, err := b.follower(&out).Run(t.Context(), Header{Stage: "stage", AsBuildUser: true}, []byte(`id -u; id -g; echo > /dev/stderr; cd && touch mine && pwd`))
	want := "1234\n2345\n\n" + filepath.Join(b.root, "shared", "home-1234") + "\n"
	if err != nil || record.Code != 0 || out.String() != want {
		t.Errorf("got %v, %q, %v; want %q", record, out.String(), err, want)
	}
}

func TestProtocolErrors(t *testing.T) {
	long := Magic + " " + strings.Repeat("x", MaxHeaderBytes+100) + "\n"
	for _, line := range []string{"", "GET / HTTP/1.1\n", "PODLANE/9 {}\n", Magic + " {}\n", Magic + ` {"stage":"../../etc"}` + "\n", Magic + ` {"stage":"a","offset":-1}` + "\n", long} {
		var out, events bytes.Buffer
		if err := newBox(t).connect(t.Context(), strings.NewReader(line), &out, &events); err != nil {
			t.Errorf("%.40q: %v", line, err)
		}
		if out.Len() > 0 || !strings.Contains(events.String(), `"code":"protocol"`) {
			t.Errorf("%.40q: output %q, events %q", line, out.String(), events.String())
		}
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add(Magic + ` {"stage":"a","offset":1,"script_bytes":2}`)
	f.Add("PODLANE/1 {}")
	f.Fuzz(func(t *testing.T, line string) {
		h, err := DecodeHeader(line)
		if err != nil {
			return
		}
		if strings.ContainsAny(h.Stage, "/\x00") || strings.Trim(h.Stage, ".") == "" || h.Offset < 0 || h.ScriptBytes < 0 {
			t.Errorf("accepted %+v", h)
		}
	})
}

func TestInit(t *testing.T) {
	start := func(b *box, args ...string) (*exec.Cmd, *bytes.Buffer) {
		b.t.Helper()
		var stderr bytes.Buffer
		cmd := b.command(append([]string{"init"}, args...)...)
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			b.t.Fatal(err)
		}
		waitFor(b.t, func() bool {
			_, err := os.Stat(b.layout().alive())
			_, err2 := os.Stat(filepath.Join(b.root, "state", "stages"))
			return err == nil && err2 == nil
		})
		return cmd, &stderr
	}
	t.Run("ends at once when idle", func(t *testing.T) {
		cmd, _ := start(newBox(t), "--role", "build")
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("lets a stage end", func(t *testing.T) {
		b := newBox(t)
		cmd, _ := start(b, "--role", "build")
		var once sync.Once
		var out bytes.Buffer
		record, err := b.follower(writerFunc(func(p []byte) (int, error) {
			once.Do(func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
			return out.Write(p)
		})).Run(t.Context(), Header{Stage: "stage"}, []byte("echo start; sleep 1; echo end"))
		if err != nil || record.Code != 0 || out.String() != "start\nend\n" {
			t.Errorf("got %v, %q, %v", record, out.String(), err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("ends an abandoned pod", func(t *testing.T) {
		cmd, stderr := start(newBox(t), "--role", "build", "--idle", "300ms")
		if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "no stage has talked to this pod") {
			t.Errorf("got %v, %s", err, stderr)
		}
	})
	t.Run("installs itself and becomes ready", func(t *testing.T) {
		b := newBox(t)
		bin := filepath.Join(b.root, "shared", "bin")
		cmd, _ := start(b, "--role", "helper", "--install", bin)
		other, _ := start(b, "--role", "build")
		out, err := b.command("ready", "--timeout", "10s").CombinedOutput()
		if err != nil || string(out) != `{"event":"ready"}`+"\n" {
			t.Errorf("got %s, %v", out, err)
		}
		if version, err := exec.CommandContext(t.Context(), filepath.Join(bin, "podlane-helper"), "version").Output(); err != nil || len(version) == 0 {
			t.Errorf("the copy says %s, %v", version, err)
		}
		for _, c := range []*exec.Cmd{cmd, other} {
			_ = c.Process.Signal(syscall.SIGTERM)
			_ = c.Wait()
		}
	})
}

func TestReadyTellsWhichServiceIsMissing(t *testing.T) {
	b := newBox(t)
	for _, file := range []string{b.layout().helperReady(), b.layout().buildUser()} {
		if err := os.WriteFile(file, []byte("0:0"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.command("ready", "--timeout", "200ms", "--service", "db=1").Output()
	if err == nil || string(out) != `{"event":"timeout","name":"db","port":1}`+"\n" {
		t.Errorf("got %s, %v", out, err)
	}
}

func TestRunnerName(t *testing.T) {
	b := newBox(t)
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "gitlab-runner-helper"), []byte("#!/bin/sh\necho theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(b.root, "state", "bin", "gitlab-runner")
	for _, tt := range []struct{ path, want string }{{"/nowhere:" + bin, filepath.Join(bin, "gitlab-runner-helper")}, {"/nowhere", helper}} {
		os.Remove(link)
		i := &Init{Layout: b.layout(), Role: RoleHelper, Program: helper, Path: tt.path}
		if err := i.announce(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(link); err != nil || got != tt.want {
			t.Errorf("gitlab-runner is %s, %v; want %s", got, err, tt.want)
		}
	}
	// Scripts find it at the end of their PATH.
	if _, output, err := b.run("stage", "gitlab-runner --version"); err != nil || !strings.Contains(output, "in the place of gitlab-runner") {
		t.Errorf("got %q, %v", output, err)
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited for a minute in vain")
		}
	}
}
