package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
	barrier := shared.Barrier()
	job := enqueue(t, shared, gitlabsim.JobSpec{
		Cache:  []gitlabsim.Cache{{Key: "looking-on", Paths: []string{"nothing"}}},
		Script: []string{"echo before", barrier.Command, "until [ -e /tmp/go ]; do sleep 0.1; done", "echo behind"}, AfterScript: []string{"until [ -e /tmp/seen ]; do sleep 0.1; done"},
	})
	if err := barrier.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}
	barrier.Open()

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

	// A container that takes long to answer is listed without its stage.
	var shown topJob
	await(t, "the job's stage in top", func() bool {
		shown = top(t, job.URL())
		return shown.Stage != ""
	})
	if shown.State != "running" || shown.Stage != "build_script" || !shown.Busy || shown.Node == "" || shared.HasStack() && shown.Cache != "miss" {
		t.Errorf("top says %+v", shown)
	}

	shell := person(t, "shell", job.URL())
	if err := converse(t, shell, "ls", "README\n", "touch /tmp/go; exit 7"); shell.ProcessState.ExitCode() != 7 {
		t.Errorf("shell: %v", err)
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

// converse is somebody in a shell who types a line, reads the answer and goes.
// What a program writes right before its end may be lost: see pod.Client.Ask.
func converse(t *testing.T, shell *exec.Cmd, line, answer, goodbye string) error {
	t.Helper()
	stdin, inErr := shell.StdinPipe()
	stdout, outErr := shell.StdoutPipe()
	if err := errors.Join(inErr, outErr, shell.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, line+"\n"); err != nil {
		t.Fatal(err)
	}
	r := &reading{from: stdout}
	r.until(t, answer)
	if _, err := io.WriteString(stdin, goodbye+"\n"); err != nil {
		t.Fatal(err)
	}
	r.until(t, "")
	return shell.Wait()
}

// topJob is a job as podlane top has it.
type topJob struct {
	URL, State, Stage, Node, Cache string
	Busy                           bool
}

// top returns what podlane top says of a job.
func top(t *testing.T, jobURL string) topJob {
	t.Helper()
	out, err := person(t, "top", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var jobs []topJob
	if err := json.Unmarshal(out, &jobs); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(jobs, func(j topJob) bool { return j.URL == jobURL })
	if at < 0 {
		t.Fatalf("top does not list %s: %s", jobURL, out)
	}
	return jobs[at]
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

// A job is captured while it runs, and its stages run again in a pod of their
// own.
func TestCaptureAndReplay(t *testing.T) {
	t.Parallel()
	barrier := shared.Barrier()
	job := enqueue(t, shared, gitlabsim.JobSpec{Script: []string{`cat README; echo "marked $MARKER" | tr a-z A-Z`, "exit 6"}, AfterScript: []string{barrier.Command}})
	if err := barrier.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Other beds of the tests number their jobs alike, in folders of their own.
	out := filepath.Join(t.TempDir(), "captured")
	text, err := person(t, "capture", "--tmp", shared.Dir, fmt.Sprint(job.ID), out).CombinedOutput()
	if err != nil || !strings.Contains(string(text), " build_script") || !strings.Contains(string(text), "REDACTED_MARKER") {
		t.Fatalf("capture: %v: %s", err, text)
	}
	for what, secret := range map[string]string{"the masked variable": marker, "the job's token": job.Token} {
		search := exec.CommandContext(t.Context(), "grep", "-rlF", "-f", "-", out)
		search.Stdin = strings.NewReader(secret)
		if grep, err := search.CombinedOutput(); err == nil {
			t.Errorf("captured with %s: %s", what, grep)
		}
	}

	// Sources are there for whoever has a token: the job's own is good as long as
	// the job runs.
	if err := os.WriteFile(filepath.Join(out, "secrets"), []byte("JOB_TOKEN="+job.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	replay := person(t, "replay", "--job-dir", out, "--keep", "get_sources", "build_script")
	text, err = replay.CombinedOutput()
	if replay.ProcessState.ExitCode() != 1 {
		t.Errorf("replay: %v", err)
	}
	for _, want := range []string{"Checking out", "\nhello from the checkout\n", "\nMARKED REDACTED_MARKER\n", "the script of build_script has placeholders without a value: REDACTED_MARKER"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("replay does not say %q", want)
		}
	}
	if strings.Contains(string(text), job.Token) {
		t.Error("replay shows the job's token")
	}

	// The pod stays, for another look.
	kept := regexp.MustCompile(`podlane shell (\S+) opens`).FindStringSubmatch(string(text))
	if kept == nil {
		t.Fatalf("replay does not name its pod: %s", text)
	}
	if err := converse(t, person(t, "shell", kept[1]), "cat README", "hello from the checkout\n", "exit"); err != nil {
		t.Errorf("shell: %v", err)
	}
	if err := shared.Kube.DeletePod(t.Context(), kept[1]); err != nil {
		t.Error(err)
	}
	barrier.Open()
	finish(t, job).failed(t, 6)
}
