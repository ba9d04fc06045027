package podagent

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIdleClock(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	type look struct {
		now, touched int
		want         bool
	}
	tests := []struct {
		name  string
		looks []look
	}{
		{"touched again and again", []look{{0, 0, false}, {8, 7, false}, {16, 15, false}, {24, 16, false}}},
		{"touched no more", []look{{0, 0, false}, {5, 0, false}, {10, 0, false}, {11, 0, true}}},
		{"the file's time is far in the past", []look{{0, -5000, false}, {9, -5000, false}, {11, -5000, true}}},
		{"the file's time is far in the future", []look{{0, 5000, false}, {11, 5000, true}}},
		{"back after long", []look{{0, 0, false}, {11, 0, true}, {12, 12, false}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			clock := idleClock{limit: 10 * time.Second}
			for _, l := range tt.looks {
				if got := clock.abandoned(at(l.now), at(l.touched)); got != l.want {
					t.Errorf("after %d s: %t", l.now, got)
				}
			}
		})
	}
}

// While the build container's image is being pulled nobody can talk to the
// pod, however long it takes.
func TestHelperWaitsForTheBuildContainer(t *testing.T) {
	b := newBox(t)
	var stderr bytes.Buffer
	cmd := b.command("init", "--role", "helper", "--idle", "300ms")
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("ended without a build container: %v, %s", err, &stderr)
	case <-time.After(time.Second):
	}
	if err := os.WriteFile(b.layout().buildUser(), []byte("0:0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(stderr.String(), "no stage for 300ms") {
		t.Errorf("got %v, %q", err, &stderr)
	}
}

func TestInitReaps(t *testing.T) {
	b := newBox(t)
	// The shell's child becomes that of the program which takes its place.
	over := filepath.Join(b.root, "over")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `(until [ -e "$1" ]; do sleep 0.05; done) & exec "$0" init --role build`, helper, over)
	cmd.Env = b.env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	onlyChild(t, cmd.Process.Pid)
	if err := os.WriteFile(over, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return len(children(cmd.Process.Pid)) == 0 })
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// A container that was told to end still tells how its stage ended, and
// starts nothing new.
func TestInitLetsTheEndBeTold(t *testing.T) {
	b := newBox(t)
	cmd := b.command("init", "--role", "build")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	waitFor(t, func() bool { _, err := os.Stat(b.layout().buildUser()); return err == nil })

	// More than a pipe holds: the session is stuck until somebody reads.
	c := b.open()
	c.start(Header{Stage: "stage"}, "head -c 1000000 /dev/zero")
	c.event()
	waitFor(t, func() bool { _, err := os.Stat(b.layout().stage("stage").exit()); return err == nil })
	_ = cmd.Process.Signal(syscall.SIGTERM)
	waitFor(t, func() bool { _, err := os.Stat(b.layout().terminating()); return err == nil })

	_, _, err := b.run("another", "echo never")
	var stage *StageError
	if !errors.As(err, &stage) || !strings.Contains(stage.Reason, "being terminated") {
		t.Errorf("a new stage: %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("ended before the output was read: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if output, last := c.end(); len(output) != 1_000_000 || last.Event != EventExit {
		t.Errorf("got %d bytes, %+v", len(output), last)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestInitRefusesAnUnknownRole(t *testing.T) {
	out, err := newBox(t).command("init", "--role", "both").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "expected build or helper") {
		t.Errorf("got %v, %s", err, out)
	}
}

// The job can put anything into the shared volume: root in the helper
// container neither follows it nor waits for it.
func TestTouchFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	link, pipe, missing := filepath.Join(dir, "link"), filepath.Join(dir, "pipe"), filepath.Join(dir, "missing")
	if err := errors.Join(os.Symlink(precious, link), unix.Mkfifo(pipe, 0o666), os.Symlink(filepath.Join(dir, "new"), missing)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, pipe, missing} {
		touch(path)
	}
	if content, err := os.ReadFile(precious); err != nil || string(content) != "content" {
		t.Errorf("a link was followed: %q, %v", content, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("a link was followed to a file that was not there")
	}
}

func TestTouchByAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	b := newBox(t)
	touch(b.layout().alive())
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(b.layout().alive(), old, old); err != nil {
		t.Fatal(err)
	}
	// Any session touches it, even one that is of no use.
	cmd := b.command("run")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4321, Gid: 4321}}
	if err := os.Chmod(filepath.Dir(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if info, err := os.Stat(b.layout().alive()); err != nil || time.Since(info.ModTime()) > time.Minute {
		t.Errorf("it is still old: %v, %v", info.ModTime(), err)
	}
}

func TestReadBuildUser(t *testing.T) {
	write := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o644) }
	}
	tests := []struct {
		name     string
		make     func(path string) error
		uid, gid int
		ok       bool
	}{
		{"as init writes it", write("1000:1001\n"), 1000, 1001, true},
		{"root", write("0:0\n"), 0, 0, true},
		{"no group", write("1000\n"), 0, 0, false},
		{"negative", write("-1:5\n"), 0, 0, false},
		{"overflows to root", write("4294967296:0\n"), 0, 0, false},
		{"the id that means no change", write("4294967295:0\n"), 0, 0, false},
		{"not a number", write("root:root\n"), 0, 0, false},
		{"endless", func(path string) error { return os.Symlink("/dev/zero", path) }, 0, 0, false},
		{"a pipe that nobody writes to", func(path string) error { return unix.Mkfifo(path, 0o666) }, 0, 0, false},
		{"missing", func(string) error { return nil }, 0, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := Layout{Shared: t.TempDir()}
			if err := tt.make(l.buildUser()); err != nil {
				t.Fatal(err)
			}
			uid, gid, err := readBuildUser(l)
			if uid != tt.uid || gid != tt.gid || (err == nil) != tt.ok {
				t.Errorf("got %d:%d, %v", uid, gid, err)
			}
		})
	}
}

func TestHomeIsNotHandedOver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	l := Layout{Shared: t.TempDir()}
	other := t.TempDir()
	if err := os.Symlink(other, l.home(1234)); err != nil {
		t.Fatal(err)
	}
	if _, err := makeHome(l, 1234, 1234); err == nil {
		t.Error("took a link for a home")
	}
	if _, err := makeHome(l, 1235, 1235); err != nil {
		t.Error(err)
	}
	// A second stage finds it there.
	if _, err := makeHome(l, 1235, 1235); err != nil {
		t.Error(err)
	}
}

// The user of the script has only its own group and sees no other script.
func TestBuildUserIsConfined(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	b := newBox(t)
	if err := os.WriteFile(b.layout().buildUser(), []byte("1234:2345\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	other := b.layout().stage("other")
	if err := os.MkdirAll(string(other), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other.script(), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	record, err := b.follower(&out).Run(t.Context(), Header{Stage: "stage", AsBuildUser: true},
		[]byte("id -G; cat "+other.script()+" 2>&1 | grep -c secret; ls "+string(b.layout().stage("stage"))+" 2>/dev/null | wc -l; exit 7"))
	if err != nil || record.Code != 7 || out.String() != "2345\n0\n0\n" {
		t.Errorf("got %+v, %q, %v", record, &out, err)
	}
}

func TestReady(t *testing.T) {
	events := func(out []byte) (found []ReadyEvent) {
		for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
			var e ReadyEvent
			if decoder.Decode(&e) != nil {
				return found
			}
			found = append(found, e)
		}
	}
	t.Run("a service that answers late", func(t *testing.T) {
		b := newBox(t)
		for _, file := range []string{b.layout().helperReady(), b.layout().buildUser()} {
			if err := os.WriteFile(file, []byte("0:0"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		// A port that is taken from the start, and refuses until somebody listens.
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(socket)
		if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
		address, err := unix.Getsockname(socket)
		if err != nil {
			t.Fatal(err)
		}
		port := strconv.Itoa(address.(*unix.SockaddrInet4).Port)
		listening := make(chan error, 1)
		time.AfterFunc(200*time.Millisecond, func() { listening <- unix.Listen(socket, 16) })
		out, err := b.command("ready", "--timeout", "1m", "--service", "registry.test/my=db="+port).Output()
		if err := <-listening; err != nil {
			t.Fatal(err)
		}
		got := events(out)
		if err != nil || len(got) != 2 || got[0].Event != "service" || got[0].Name != "registry.test/my=db" || got[1].Event != "ready" {
			t.Errorf("got %s, %v", out, err)
		}
		if _, err := os.Stat(b.layout().alive()); err != nil {
			t.Errorf("nobody was told that somebody is there: %v", err)
		}
	})
	t.Run("a container that is not up is no service's fault", func(t *testing.T) {
		b := newBox(t)
		if err := os.WriteFile(b.layout().buildUser(), []byte("0:0"), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := b.command("ready", "--timeout", "100ms").Output()
		if got := events(out); err == nil || len(got) != 1 || got[0].Event != "not-ready" || got[0].Name != RoleHelper {
			t.Errorf("got %s, %v", out, err)
		}
	})
}

// A program that is being copied is never seen by halves.
func TestInstallIsWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bin")
	file := filepath.Join(dir, "podlane-helper")
	want, err := os.Stat(helper)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Install(helper, dir) }()
	for {
		if info, err := os.Stat(file); err == nil && (info.Size() != want.Size() || info.Mode().Perm() != 0o755) {
			t.Fatalf("seen with %d bytes, mode %s", info.Size(), info.Mode())
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".tmp-*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			return
		default:
		}
	}
}
