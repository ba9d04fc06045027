package podagent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// client speaks the protocol by hand, a line at a time.
type client struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	events *json.Decoder
}

func (b *box) open() *client {
	b.t.Helper()
	c := &client{t: b.t, cmd: b.command("run")}
	var stderr io.Reader
	var errs [3]error
	c.stdin, errs[0] = c.cmd.StdinPipe()
	c.stdout, errs[1] = c.cmd.StdoutPipe()
	stderr, errs[2] = c.cmd.StderrPipe()
	c.events = json.NewDecoder(stderr)
	if err := errors.Join(append(errs[:], c.cmd.Start())...); err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.stdin, text); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) start(h Header, script string) {
	c.t.Helper()
	c.send(opening(c.t, h, script))
}

func opening(t *testing.T, h Header, script string) string {
	t.Helper()
	h.ScriptBytes = int64(len(script))
	line, err := EncodeHeader(h)
	if err != nil {
		t.Fatal(err)
	}
	return string(line) + script
}

func (c *client) event() Event {
	c.t.Helper()
	var e Event
	if err := c.events.Decode(&e); err != nil {
		c.t.Fatalf("read an event: %v", err)
	}
	return e
}

// end reads stdout and events to their ends; the last event is the result.
func (c *client) end() (output []byte, last Event) {
	c.t.Helper()
	output, err := io.ReadAll(c.stdout)
	if err != nil {
		c.t.Fatal(err)
	}
	for {
		var e Event
		if err := c.events.Decode(&e); err != nil {
			break
		}
		last = e
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Errorf("the session: %v", err)
	}
	return output, last
}

func (c *client) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func TestStalledSessionHoldsUpNobody(t *testing.T) {
	for _, sent := range []int{1, 10, 70, 1 << 20} {
		t.Run(fmt.Sprint(sent, " bytes"), func(t *testing.T) {
			b := newBox(t)
			const script = "echo once; exit 6"
			stalled := b.open()
			whole := opening(t, Header{Stage: "stage"}, script)
			stalled.send(whole[:min(sent, len(whole)-1)])
			record, output, err := b.run("stage", script)
			if err != nil || record.Code != 6 || output != "once\n" {
				t.Errorf("got %+v, %q, %v", record, output, err)
			}
			// The rest comes late: the first session attaches to what is over.
			stalled.send(whole[min(sent, len(whole)-1):])
			if output, last := stalled.end(); string(output) != "once\n" || last.Event != EventExit || last.Exit.Code != 6 {
				t.Errorf("the stalled session got %q and %+v", output, last)
			}
			scripts, _ := filepath.Glob(b.layout().stage("stage").script() + "*")
			if len(scripts) > 0 {
				t.Errorf("left behind: %v", scripts)
			}
		})
	}
}

// Whatever instant of a start a session is killed at, the next one starts the
// stage or attaches to it, and the script runs once.
func TestKilledStarters(t *testing.T) {
	b := newBox(t)
	for i := range 60 {
		stage := "stage" + strconv.Itoa(i)
		count := filepath.Join(b.root, stage)
		script := fmt.Sprintf("echo run >> %s; echo output; exit 3", count)
		for range 2 {
			c := b.open()
			c.start(Header{Stage: stage}, script)
			time.Sleep(time.Duration(rand.IntN(12_000)) * time.Microsecond)
			c.kill()
		}
		record, output, err := b.run(stage, script)
		if err != nil || record.Code != 3 || output != "output\n" {
			t.Fatalf("try %d: got %+v, %q, %v", i, record, output, err)
		}
		if runs, _ := os.ReadFile(count); string(runs) != "run\n" {
			t.Fatalf("try %d: the script ran %d times", i, bytes.Count(runs, []byte("\n")))
		}
	}
}

// A supervisor's death is noticed whenever it comes, without any output.
func TestKilledSupervisorIsNoticed(t *testing.T) {
	b := newBox(t)
	for i := range 30 {
		stage := "stage" + strconv.Itoa(i)
		c := b.open()
		c.start(Header{Stage: stage}, "exec sleep 300")
		if e := c.event(); e.Event != EventStarted {
			t.Fatalf("got %+v", e)
		}
		pid := b.supervisor(stage)
		script := onlyChild(t, pid)
		_ = unix.Kill(pid, unix.SIGKILL)
		if _, last := c.end(); last.Code != CodeLost {
			t.Fatalf("try %d: got %+v, want a lost stage", i, last)
		}
		_ = unix.Kill(script, unix.SIGKILL)
	}
}

func (b *box) supervisor(stage string) int {
	b.t.Helper()
	text, err := os.ReadFile(b.layout().stage(stage).supervised())
	if err != nil {
		b.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		b.t.Fatal(err)
	}
	return pid
}

// onlyChild waits until a process has a child.
func onlyChild(t *testing.T, pid int) (child int) {
	t.Helper()
	waitFor(t, func() bool {
		c := children(pid)
		if len(c) == 0 {
			return false
		}
		child = c[0]
		return true
	})
	return child
}

func children(pid int) (found []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, field := range strings.Fields(string(text)) {
			child, _ := strconv.Atoi(field)
			found = append(found, child)
		}
	}
	return found
}

func TestOffsets(t *testing.T) {
	b := newBox(t)
	// One line of 5 MB, without an end.
	want := bytes.Repeat([]byte("0123456789"), 500_000)
	file := filepath.Join(b.root, "line")
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
	script := "cat " + file
	if _, output, err := b.run("stage", script); err != nil || output != string(want) {
		t.Fatalf("got %d bytes, %v", len(output), err)
	}
	for _, offset := range []int{0, 1, rand.IntN(len(want)), len(want) - 1, len(want)} {
		c := b.open()
		c.start(Header{Stage: "stage", Offset: int64(offset)}, script)
		output, last := c.end()
		if last.Event != EventExit || !bytes.Equal(output, want[offset:]) {
			t.Errorf("from %d on: %d bytes, %+v", offset, len(output), last)
		}
	}
	c := b.open()
	c.start(Header{Stage: "stage", Offset: int64(len(want)) + 1}, script)
	if output, last := c.end(); len(output) > 0 || last.Code != CodeProtocol {
		t.Errorf("beyond the end: %d bytes, %+v", len(output), last)
	}
}

func TestEventsInOrder(t *testing.T) {
	b := newBox(t)
	for _, attached := range []bool{false, true} {
		c := b.open()
		c.start(Header{Stage: "stage"}, "echo x; exit 2")
		if e := c.event(); e.Event != EventStarted || e.Attached != attached {
			t.Errorf("first event is %+v, want attached %t", e, attached)
		}
		_, last := c.end()
		if last.Exit == nil || last.Exit.Started.IsZero() || last.Exit.Ended.Before(last.Exit.Started) {
			t.Fatalf("last event is %+v", last)
		}
		last.Exit.Started, last.Exit.Ended = time.Time{}, time.Time{}
		if diff := cmp.Diff(Event{Event: EventExit, Exit: &ExitRecord{Code: 2, OutputBytes: 2}}, last); diff != "" {
			t.Error(diff)
		}
	}
}

// The client has gone without a word, or reads no more: the session ends, the
// stage goes on.
func TestSilentClient(t *testing.T) {
	tests := []struct {
		name   string
		stdout func(t *testing.T) io.Writer
	}{
		{"sends no pings", func(*testing.T) io.Writer { return io.Discard }},
		{"does not read", func(t *testing.T) io.Writer {
			r, w := io.Pipe()
			t.Cleanup(func() { r.Close() })
			return w
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			s := &Server{Layout: b.layout(), Program: helper, silence: 300 * time.Millisecond}
			stdin, client := io.Pipe()
			defer stdin.Close()
			over := filepath.Join(b.root, "over")
			script := "head -c 1000000 /dev/zero; until [ -e " + over + " ]; do sleep 0.05; done; exit 5"
			go func() {
				_, _ = io.WriteString(client, opening(t, Header{Stage: "stage"}, script))
			}()
			var events bytes.Buffer
			s.Serve(t.Context(), stdin, tt.stdout(t), &events)
			if err := os.WriteFile(over, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			record, output, err := b.run("stage", script)
			if err != nil || record.Code != 5 || len(output) != 1_000_000 {
				t.Errorf("got %+v, %d bytes, %v", record, len(output), err)
			}
		})
	}
}

func TestPingsKeepASession(t *testing.T) {
	const silence = 500 * time.Millisecond
	b := newBox(t)
	for try := range 50 {
		longest, output, events := pinged(t, b, fmt.Sprintf("stage%d", try), silence)
		if output == "late\n" && strings.Contains(events, `"event":"exit"`) {
			return
		}
		if longest < silence/2 {
			t.Fatalf("got %q, events %s, with pings every %s", output, events, longest)
		}
		// The machine was too busy to ping.
	}
	t.Fatal("this machine cannot ping every 100 ms")
}

// pinged runs a stage that is silent for longer than silence, and tells the
// longest pause between two pings.
func pinged(t *testing.T, b *box, stage string, silence time.Duration) (longest time.Duration, output, events string) {
	t.Helper()
	s := &Server{Layout: b.layout(), Program: helper, silence: silence}
	stdin, client := io.Pipe()
	pauses := make(chan time.Duration, 1)
	go func() {
		longest, last := time.Duration(0), time.Now()
		_, err := io.WriteString(client, opening(t, Header{Stage: stage}, "sleep 1.5; echo late"))
		for ; err == nil; time.Sleep(100 * time.Millisecond) {
			_, err = io.WriteString(client, ControlPing+"\n")
			longest, last = max(longest, time.Since(last)), time.Now()
		}
		pauses <- longest
	}()
	var out, said bytes.Buffer
	s.Serve(t.Context(), stdin, &out, &said)
	stdin.Close()
	return <-pauses, out.String(), said.String()
}

// A cancel line may come right behind the script.
func TestCancelAtOnce(t *testing.T) {
	b := newBox(t)
	for i := range 20 {
		c := b.open()
		c.start(Header{Stage: "stage" + strconv.Itoa(i), GraceSeconds: 5}, "sleep 300\n")
		c.send(ControlCancel + "\n")
		if _, last := c.end(); last.Event != EventExit || !last.Exit.Cancelled || last.Exit.Code != 143 {
			t.Fatalf("got %+v, %+v", last, last.Exit)
		}
	}
}

// Cancelling ends everything in the script's process group.
func TestCancelEndsGrandchildren(t *testing.T) {
	b := newBox(t)
	c := b.open()
	c.start(Header{Stage: "stage", GraceSeconds: 1}, `sh -c 'trap "" TERM; echo $$; sleep 300' & sh -c 'sleep 300 & echo $!; wait' & wait`)
	lines := bufio.NewScanner(c.stdout)
	var pids []int
	for len(pids) < 2 && lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	c.send(ControlCancel + "\n")
	if _, last := c.end(); last.Event != EventExit || !last.Exit.Cancelled {
		t.Fatalf("got %+v", last)
	}
	for _, pid := range pids {
		waitFor(t, func() bool { return !running(pid) })
	}
}

// running is false for zombies too: it depends on the machine who reaps them.
func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(text, []byte(") "))
	return !bytes.HasPrefix(rest, []byte("Z"))
}

// What the script inherits: nothing but its three streams, which block, and
// no signal that is ignored or held back.
func TestScriptsSurroundings(t *testing.T) {
	b := newBox(t)
	// What this test itself has inherited does not count: nohup, for one,
	// leaves SIGHUP ignored.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	own := regexp.MustCompile(`SigIgn:.*`).FindString(string(status))
	_, output, err := b.run("stage", `ls -l /proc/self/fd | grep -c '`+b.root+`'; readlink /proc/self/fd/0
grep flags: /proc/self/fdinfo/1; grep -E 'SigBlk|SigIgn' /proc/self/status; yes | head -n 1; tr '\0' ' ' < /proc/$$/cmdline`)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(output, "\n")
	if len(lines) < 7 {
		t.Fatalf("output is %q", output)
	}
	lines[4] = strconv.FormatUint(ignoredSignals(t, lines[4])&^ignoredSignals(t, own), 16)
	want := []string{"0", "/dev/null", "flags:\t01", "SigBlk:\t0000000000000000", "0", "y"}
	if diff := cmp.Diff(want, lines[:6]); diff != "" {
		t.Error(diff)
	}
	if name := strings.Fields(lines[6]); len(name) != 2 || filepath.Base(name[1]) != "script" {
		t.Errorf("the command is %v, want a shell and a script", name)
	}
}

// ignoredSignals parses a line such as "SigIgn:	0000000000001000".
func ignoredSignals(t *testing.T, line string) uint64 {
	t.Helper()
	mask, err := strconv.ParseUint(strings.TrimPrefix(line, "SigIgn:\t"), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return mask
}

func TestPath(t *testing.T) {
	l := Layout{State: t.TempDir(), Shells: []string{"/bin", "/busybox"}}
	tests := []struct {
		name    string
		environ []string
		bin     bool
		want    string
	}{
		{"nothing to add", []string{"PATH=/a:/b"}, false, "/a:/b"},
		{"our folder comes last", []string{"PATH=/a:/b"}, true, "/a:/b:" + l.bin()},
		{"no PATH at all", nil, true, "/bin:/busybox:" + l.bin()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.bin {
				if err := os.MkdirAll(l.bin(), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s := &Supervisor{Layout: l, Environ: tt.environ}
			if got := lookup(s.environ(), "PATH"); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestWatchWithoutInotify(t *testing.T) {
	changed := watch(t.Context(), stageDir(filepath.Join(t.TempDir(), "not-there")))
	for range 2 {
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatal("nobody looks at the clock")
		}
	}
}

// mountState gives a container's state a file system of its own.
func (b *box) mountState(options string) {
	b.t.Helper()
	state := b.layout().State
	if err := unix.Mount("tmpfs", state, "tmpfs", unix.MS_NOEXEC, options); err != nil {
		b.t.Skipf("needs to mount a file system: %v", err)
	}
	b.t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
}

func TestScriptOnNoexecVolume(t *testing.T) {
	b := newBox(t)
	b.mountState("size=1m,mode=0777")
	if record, output, err := b.run("stage", "echo runs"); err != nil || record.Code != 0 || output != "runs\n" {
		t.Errorf("got %+v, %q, %v", record, output, err)
	}
}

func TestFullDisk(t *testing.T) {
	tests := []struct {
		name, script string
		header       Header
		reason       string
		output       bool
	}{
		{"a chatty script", "head -c 5000000 /dev/zero; touch %s", Header{Stage: "stage"}, "no space left on the node for the job's output", true},
		{"a script that ends as the disk is full", "head -c 1040000 /dev/zero; exit 0; : %s", Header{Stage: "stage"}, "no space left on the node for the job's output", true},
		{"a script that does not fit", "exit 0 %s" + strings.Repeat("#", 2<<20), Header{Stage: "stage"}, "no space left on device", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t)
			b.mountState("size=1m,mode=0777")
			mark := filepath.Join(b.root, "mark")
			var out bytes.Buffer
			_, err := b.follower(&out).Run(t.Context(), tt.header, fmt.Appendf(nil, tt.script, mark))
			var stage *StageError
			if !errors.As(err, &stage) || stage.Code != CodeInternal || !strings.Contains(stage.Reason, tt.reason) {
				t.Errorf("got %v, want %q", err, tt.reason)
			}
			if (out.Len() > 0) != tt.output {
				t.Errorf("%d bytes of output arrived", out.Len())
			}
			if _, err := os.Stat(mark); err == nil {
				t.Error("the script went on")
			}
		})
	}
}

func TestHeaderOverPipesInPieces(t *testing.T) {
	b := newBox(t)
	c := b.open()
	for _, piece := range opening(t, Header{Stage: "stage"}, "exit 8") {
		c.send(string(piece))
	}
	if _, last := c.end(); last.Exit == nil || last.Exit.Code != 8 {
		t.Errorf("got %+v", last)
	}
}

func TestSessionEndsWhenStdinDoes(t *testing.T) {
	b := newBox(t)
	c := b.open()
	over := filepath.Join(b.root, "over")
	script := "until [ -e " + over + " ]; do sleep 0.05; done; exit 4"
	c.start(Header{Stage: "stage"}, script)
	c.event()
	c.stdin.Close()
	if _, last := c.end(); last.Event != "" {
		t.Errorf("got %+v after the client has gone", last)
	}
	if err := os.WriteFile(over, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	record, err := b.follower(io.Discard).Run(t.Context(), Header{Stage: "stage"}, []byte(script))
	if err != nil || record.Code != 4 {
		t.Errorf("got %+v, %v", record, err)
	}
}
