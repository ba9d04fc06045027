package daemon

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const rest = " 1 2 2 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 8123 0 0"
	tests := []struct {
		name, stat string
		want       procStat
		ok         bool
	}{
		{"plain", "42 (sleep) S" + rest, procStat{'S', 3, 8123}, true},
		{"name with parentheses", "42 (a) R (b c)) Z" + rest, procStat{'Z', 3, 8123}, true},
		{"cut short", "42 (sleep) S 1 2", procStat{}, false},
		{"empty", "", procStat{}, false},
		{"start is no number", "42 (sleep) S" + strings.Replace(rest, "8123", "x", 1), procStat{}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseStat([]byte(test.stat))
			if got != test.want || (err == nil) != test.ok {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// A process whose first thread has ended still has its sockets.
func TestEnded(t *testing.T) {
	tests := map[procStat]bool{
		{state: 'S', threads: 1}: false,
		{state: 'R', threads: 9}: false,
		{state: 'Z', threads: 9}: false,
		{state: 'Z', threads: 1}: true,
		{state: 'X', threads: 1}: true,
	}
	for stat, want := range tests {
		if stat.ended() != want {
			t.Errorf("%c with %d threads has ended: %v", stat.state, stat.threads, !want)
		}
	}
}

func TestRecordThatMakesNoSense(t *testing.T) {
	for _, text := range []string{"", "x", "12", "12 34 boot", "1 34 boot print", "-5 34 boot print"} {
		path := filepath.Join(t.TempDir(), "pid")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if r, ok, err := readRecord(path); ok || err != nil {
			t.Errorf("record %q: %v, %v, %v", text, r, ok, err)
		}
	}
}

func TestLife(t *testing.T) {
	d := sleeper(t)
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	pid := d.Pid()
	if pid == 0 {
		t.Fatalf("it doesn't run; log: %q", d.LastLines(5))
	}
	if current, err := d.Current(); !current || err != nil {
		t.Errorf("just started, but current is %v, %v", current, err)
	}
	if err := d.Stop(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	if d.Pid() != 0 {
		t.Error("it runs after it was stopped")
	}
	if _, err := os.Stat(d.PidFile); !os.IsNotExist(err) {
		t.Errorf("the pid file is still there: %v", err)
	}
	if err := d.Stop(t.Context(), time.Second); err != nil {
		t.Errorf("stopping it twice: %v", err)
	}
}

func TestStopKillsWhatIgnoresSIGTERM(t *testing.T) {
	d := sleeper(t)
	d.Path, d.Args = "/bin/sh", []string{"-c", "trap '' TERM; echo deaf; while :; do sleep 0.01; done"}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	for len(d.LastLines(1)) == 0 { // until the trap is set
		time.Sleep(time.Millisecond)
	}
	if err := d.Stop(t.Context(), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if d.Pid() != 0 {
		t.Error("it runs after it was stopped")
	}
}

// A pid that was used again must never be taken for the daemon.
func TestStopSparesAnotherProcessOfTheSamePid(t *testing.T) {
	tests := map[string]func(identity) identity{
		"other start time": func(id identity) identity { id.start++; return id },
		"other boot":       func(id identity) identity { id.boot = "another"; return id },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			stranger := exec.Command("sleep", "60")
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := stranger.Process.Kill(); err != nil {
					t.Errorf("the stranger was killed: %v", err)
				}
				_ = stranger.Wait() // says "killed"
			}()
			id, ok := identify(stranger.Process.Pid)
			if !ok {
				t.Fatal("cannot identify a process that runs")
			}
			d := sleeper(t)
			if err := (record{id: change(id), fingerprint: "x"}).write(d.PidFile); err != nil {
				t.Fatal(err)
			}
			if d.Pid() != 0 {
				t.Error("the stranger is taken for the daemon")
			}
			if err := d.Stop(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if !id.alive() {
				t.Error("the stranger has been killed")
			}
		})
	}
}

func TestCurrent(t *testing.T) {
	d := sleeper(t)
	config := filepath.Join(t.TempDir(), "config")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	d.Files = []string{config}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	check := func(what string, d Daemon, want bool) {
		t.Helper()
		if got, err := d.Current(); got != want || err != nil {
			t.Errorf("%s: current is %v, %v", what, got, err)
		}
	}
	check("as started", d, true)
	write("b")
	check("other file content", d, false)
	write("a")
	check("file content as it was", d, true)
	other := d
	other.Args = []string{"61"}
	check("other arguments", other, false)
	other = d
	other.Env = []string{"A=b"}
	check("other environment", other, false)
}

func TestDeadDaemonIsNotRunning(t *testing.T) {
	d := sleeper(t)
	d.Path, d.Args = "/bin/sh", []string{"-c", "echo one; echo two; exit 1"}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	for d.Pid() != 0 {
		time.Sleep(time.Millisecond)
	}
	if diff := cmp.Diff([]string{"two"}, d.LastLines(1)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"one", "two"}, d.LastLines(9)); diff != "" {
		t.Error(diff)
	}
}

func TestLogOfTheRunBeforeIsKept(t *testing.T) {
	d := sleeper(t)
	d.Path = "/bin/echo"
	for _, word := range []string{"first", "second"} {
		d.Args = []string{word}
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
		for d.Pid() != 0 {
			time.Sleep(time.Millisecond)
		}
	}
	old, err := os.ReadFile(d.LogFile + ".old")
	if string(old) != "first\n" || err != nil {
		t.Errorf("the old log is %q, %v", old, err)
	}
}

// sleeper is a daemon that is stopped when the test ends.
func sleeper(t *testing.T) Daemon {
	dir := t.TempDir()
	d := Daemon{
		Name: "sleeper", Path: "/bin/sleep", Args: []string{"60"}, Env: []string{"PATH=/usr/bin:/bin"},
		PidFile: filepath.Join(dir, "run", "sleeper.pid"), LogFile: filepath.Join(dir, "log", "sleeper.log"),
	}
	if err := os.MkdirAll(filepath.Dir(d.PidFile), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if err := d.Stop(context.WithoutCancel(t.Context()), 0); err != nil {
			t.Error(err)
		}
	})
	return d
}
