package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"podlane/test/gitlabsim"
)

// person is a command that somebody runs from another shell.
func person(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shared.Podlane, args...)
	cmd.Env = append(os.Environ(), "PODLANE_CONFIG="+shared.PeopleConfig)
	return cmd
}

// Somebody looks on while a job runs: lists it, follows it, opens a shell in it.
func TestLookingOn(t *testing.T) {
	t.Parallel()
	job := enqueue(t, shared, gitlabsim.JobSpec{Script: []string{"echo before", "until [ -e /tmp/go ]; do sleep 0.1; done", "echo behind"}, AfterScript: []string{"until [ -e /tmp/seen ]; do sleep 0.1; done"}})
	if err := job.WaitOutput(t.Context(), "\nbefore"); err != nil {
		t.Fatal(err)
	}

	attach := person(t, "attach", job.URL())
	output, err := attach.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attach.Start(); err != nil {
		t.Fatal(err)
	}
	attached := &reading{from: output}
	attached.until(t, "\nbefore\n")

	out, err := person(t, "top", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var jobs []struct {
		URL, State, Stage, Node string
		Busy                    bool
	}
	if err := json.Unmarshal(out, &jobs); err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, j := range jobs {
		if j.URL != job.URL() {
			continue
		}
		seen = true
		if j.State != "running" || j.Stage != "build_script" || !j.Busy || j.Node == "" {
			t.Errorf("top says %+v", j)
		}
	}
	if !seen {
		t.Errorf("top lists %s", out)
	}

	shell := person(t, "shell", job.URL())
	shell.Stdin = strings.NewReader("pwd; ls; touch /tmp/go; exit 7\n")
	out, err = shell.CombinedOutput()
	if shell.ProcessState.ExitCode() != 7 || !strings.Contains(string(out), "README") {
		t.Errorf("shell: %v: %s", err, out)
	}

	attached.until(t, "\nbehind\n")
	if out, err := person(t, "shell", job.URL(), "--", "touch", "/tmp/seen").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	finish(t, job).succeeded(t, "\nbehind\n")
	attached.until(t, "") // the end
	if err := attach.Wait(); err != nil {
		t.Errorf("attach: %v", err)
	}
	for _, text := range []string{"Checking out", "\nbefore\n", "\nbehind\n"} {
		if strings.Count(attached.text, text) != 1 {
			t.Errorf("attach has shown %q %d times", text, strings.Count(attached.text, text))
		}
	}
}

// reading is what has come through a pipe so far.
type reading struct {
	from io.Reader
	text string
}

// until reads until a text has come, or to the end if that is empty.
func (r *reading) until(t *testing.T, text string) {
	t.Helper()
	for buf := make([]byte, 4096); text == "" || !strings.Contains(r.text, text); {
		n, err := r.from.Read(buf)
		r.text += string(buf[:n])
		if err != nil && text != "" {
			t.Fatalf("%q has not come: %v\n%s", text, err, tail(r.text))
		}
		if err != nil {
			return
		}
	}
}

func TestNoSuchJobToLookAt(t *testing.T) {
	t.Parallel()
	out, err := person(t, "attach", "987654321").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "podlane: error: no pod of job 987654321 in namespace ") {
		t.Errorf("%v: %s", err, out)
	}
}

// A job is captured while it runs, and its script run again in a pod of its own.
func TestCaptureAndReplay(t *testing.T) {
	t.Parallel()
	job := enqueue(t, shared, gitlabsim.JobSpec{Script: []string{`echo "marked $MARKER" | tr a-z A-Z`, "exit 6"}, AfterScript: []string{"until [ -e /tmp/go ]; do sleep 0.1; done"}})
	if err := job.WaitOutput(t.Context(), "\nMARKED MARKER-"); err != nil {
		t.Fatal(err)
	}
	// Other beds of the tests number their jobs alike, in folders of their own.
	out := filepath.Join(t.TempDir(), "captured")
	text, err := person(t, "capture", "--tmp", shared.Dir, fmt.Sprint(job.ID), out).CombinedOutput()
	if err != nil || !strings.Contains(string(text), " build_script") || !strings.Contains(string(text), "REDACTED_MARKER") {
		t.Fatalf("capture: %v: %s", err, text)
	}
	if text, err := person(t, "shell", job.URL(), "--", "touch", "/tmp/go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	search := exec.CommandContext(t.Context(), "grep", "-rlF", "-f", "-", out)
	search.Stdin = strings.NewReader(marker)
	if grep, err := search.CombinedOutput(); err == nil {
		t.Errorf("captured with the secret: %s", grep)
	}
	finish(t, job).failed(t, 6)

	// The runner's script wants the project's folder, which get_sources makes.
	_, path, _ := strings.Cut(strings.TrimPrefix(job.URL(), "http://"), "/")
	path, _, _ = strings.Cut(path, "/-/")
	if err := os.WriteFile(filepath.Join(out, "stages", "prepare_script.sh"), []byte("mkdir -p /builds/"+path), 0o600); err != nil {
		t.Fatal(err)
	}
	replay := person(t, "replay", "--job-dir", out, "prepare_script", "build_script")
	text, err = replay.CombinedOutput()
	if replay.ProcessState.ExitCode() != 1 || !strings.Contains(string(text), "\nMARKED REDACTED_MARKER\n") || !strings.Contains(string(text), "\ndeleted pod ") {
		t.Errorf("replay: %v: %s", err, text)
	}
}
