package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlane/test/gitlabsim"
	"podlane/test/joblines"
	"podlane/test/stack/stackenv"
)

// found is a line of gc's answer.
type found struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Why     string `json:"why"`
	Deleted bool   `json:"deleted"`
}

// gc calls podlane gc for one job. Remarks go to the log of the test.
func gc(t *testing.T, args ...string) []found {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shared.Podlane, append([]string{"gc", "--json", "--grace", "0s"}, args...)...)
	cmd.Env = append(os.Environ(), "PODLANE_CONFIG="+shared.PeopleConfig)
	var remarks strings.Builder
	cmd.Stderr = &remarks
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gc: %v: %s", err, remarks.String())
	}
	var all []found
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("gc answers %s: %v", out, err)
	}
	return all
}

func runScript(t *testing.T, dir, stage, script string) {
	t.Helper()
	file := filepath.Join(dir, "script-"+stage)
	if err := os.WriteFile(file, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	call(t, dir, "run", file, stage)
}

// A pod in which only a service is left, as after the end of the runner's host:
// listed first, deleted if asked to.
func TestGCTakesAPodThatIsOver(t *testing.T) {
	t.Parallel()
	dir, jobURL := byHand(t, stackenv.ImageJob)
	call(t, dir, "prepare")
	if got := gc(t, "--yes", jobURL); len(got) != 0 {
		t.Fatalf("gc found %v of a pod that is well", got)
	}
	// What podlane-helper does when nobody has come for job.idle_timeout.
	runScript(t, dir, "build_script", "kill -TERM 1")
	runScript(t, dir, "prepare_script", "kill -TERM 1")
	deadline := time.Now().Add(time.Minute)
	var got []found
	for got = gc(t, jobURL); len(got) == 0 && time.Now().Before(deadline); got = gc(t, jobURL) {
		time.Sleep(200 * time.Millisecond)
	}
	if len(got) != 1 || got[0].Kind != "pod" || got[0].Deleted || !strings.HasPrefix(got[0].Why, "podlane's containers ended ") {
		t.Fatalf("gc found %v", got)
	}
	if pods, err := shared.Kube.Pods(t.Context(), jobURL); err != nil || len(pods) != 1 {
		t.Fatalf("%d pods after a look: %v", len(pods), err)
	}
	// The pod's status may move between the look and the deletion: gc leaves it
	// alone then, until next time.
	for !got[0].Deleted && time.Now().Before(deadline) {
		if got = gc(t, "--yes", jobURL); len(got) == 0 {
			break
		}
	}
	if err := nothingLeft(t.Context(), jobURL); err != nil {
		t.Error(err)
	}
}

// A secret whose prepare was killed before it made the pod.
func TestGCTakesALonelySecret(t *testing.T) {
	t.Parallel()
	page := "http://gitlab.example.com/gc/" + randomHex() + "/-/jobs/77"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name:        "podlane-p9-j77-" + randomHex() + "-pull",
		Labels:      map[string]string{"app.kubernetes.io/managed-by": "podlane", "podlane/job": "77"},
		Annotations: map[string]string{"podlane/job-url": page, "podlane/timeout": "-10m"}, // over since long
	}}
	if err := shared.Kube.CreateSecret(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	admin := []string{"--kubeconfig", shared.AdminKubeconfig(), page}
	if got := gc(t, admin...); len(got) != 1 || got[0].Name != secret.Name || got[0].Deleted {
		t.Errorf("gc found %v", got)
	}
	if got := gc(t, append(admin, "--yes")...); len(got) != 1 || !got[0].Deleted {
		t.Errorf("gc found %v", got)
	}
	if err := nothingLeft(t.Context(), page); err != nil {
		t.Error(err)
	}
}

// gc runs all the time while a job does: it never touches what the job has.
func TestGCLeavesALiveJobAlone(t *testing.T) {
	t.Parallel()
	job := enqueue(t, shared, gitlabsim.JobSpec{Script: []string{"for i in 1 2 3 4 5; do echo line $i; sleep 0.5; done"}, AfterScript: []string{"echo after"}})
	ctx, stop := context.WithCancel(t.Context())
	swept := make(chan int)
	go func() {
		n := 0
		defer func() { swept <- n }()
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, shared.Podlane, "gc", "--yes", "--grace", "0s", job.URL())
			cmd.Env = append(os.Environ(), "PODLANE_CONFIG="+shared.PeopleConfig)
			if cmd.Run() == nil {
				n++
			}
		}
	}()
	o := finish(t, job)
	stop()
	if n := <-swept; n == 0 {
		t.Error("gc never ran: the test proves nothing")
	}
	o.succeeded(t, "\nline 5\n", "\nafter\n")
}

// A second attempt at a job whose stage is being followed gets no pod: the first
// one's goes on.
func TestPrepareRefusesAJobThatIsAlive(t *testing.T) {
	t.Parallel()
	dir, _ := byHand(t, stackenv.ImageJob)
	call(t, dir, "prepare")
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("touch /tmp/began; until [ -e /tmp/go ]; do sleep 0.1; done; echo undisturbed"), 0o600); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		out string
		err error
	}
	ended := make(chan answer, 1)
	go func() {
		out, err := shared.Call(t.Context(), dir, "run", script, "build_script")
		ended <- answer{out, err}
	}()
	runScript(t, dir, "after_script", "until [ -e /tmp/began ]; do sleep 0.1; done")

	other := t.TempDir()
	response, err := os.ReadFile(filepath.Join(dir, "response.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "response.json"), response, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := shared.Call(t.Context(), other, "prepare"); err == nil || !strings.Contains(out, "podlane: error: job is alive: stage build_script-") {
		t.Errorf("prepare: %v: %s", err, out)
	}
	runScript(t, dir, "step_go", "touch /tmp/go")
	if got := <-ended; got.err != nil || joblines.Without(got.out) != "undisturbed\n" {
		t.Errorf("the stage: %v: %s", got.err, got.out)
	}
}

// A second attempt at a job whose pod is in its grace period waits until that has
// ended, if nobody follows it: never do two pods of a job run side by side.
func TestPrepareWaitsForAPodInItsGracePeriod(t *testing.T) {
	t.Parallel()
	dir, jobURL := byHand(t, stackenv.ImageJob)
	call(t, dir, "prepare")
	pods, err := shared.Kube.Pods(t.Context(), jobURL)
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	first := pods[0]
	barrier := shared.Barrier()
	t.Cleanup(barrier.Open)
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("trap '' TERM; "+barrier.Command), 0o600); err != nil {
		t.Fatal(err)
	}
	run := shared.Command(t.Context(), dir, "run", script, "build_script")
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	if err := barrier.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The runner's host goes, and the pod's node is drained.
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait()
	if err := shared.Kube.EndPod(t.Context(), first.Name, 600); err != nil {
		t.Fatal(err)
	}

	other := t.TempDir()
	response, err := os.ReadFile(filepath.Join(dir, "response.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "response.json"), response, 0o600); err != nil {
		t.Fatal(err)
	}
	var second *waiting
	eventually(t, func() bool {
		// The pod takes a moment to notice that nobody follows it any more.
		second = prepareUntil(t, other, "waiting for the pod of an earlier attempt to end: it was deleted; its script may go on for up to 10m0s")
		return second.found || !strings.Contains(second.log, "job is alive")
	})
	if !second.found {
		t.Fatalf("prepare does not say that it waits: %s", second.log)
	}
	if pods, err := shared.Kube.Pods(t.Context(), jobURL); err != nil || len(pods) != 1 || pods[0].UID != first.UID {
		t.Errorf("%d pods while the first one's script runs, %v", len(pods), err)
	}
	barrier.Open()
	if err := second.end(); err != nil {
		t.Fatalf("prepare: %v: %s", err, second.log)
	}
	if pods, err := shared.Kube.Pods(t.Context(), jobURL); err != nil || len(pods) != 1 || pods[0].UID == first.UID {
		t.Errorf("%d pods afterwards, %v", len(pods), err)
	}
	call(t, other, "cleanup")
}

// waiting is a prepare that goes on, or has ended without the line.
type waiting struct {
	found bool
	log   string
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// prepareUntil starts prepare and reads its log until a line comes.
func prepareUntil(t *testing.T, dir, line string) *waiting {
	t.Helper()
	w := &waiting{cmd: shared.Command(t.Context(), dir, "prepare")}
	output, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.cmd.Stderr = w.cmd.Stdout
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.lines = bufio.NewScanner(output)
	for w.lines.Scan() {
		w.log += w.lines.Text() + "\n"
		if w.lines.Text() == line {
			w.found = true
			return w
		}
	}
	_ = w.cmd.Wait()
	return w
}

// end waits for the end of a prepare that goes on.
func (w *waiting) end() error {
	for w.lines.Scan() {
		w.log += w.lines.Text() + "\n"
	}
	return w.cmd.Wait()
}
