package faults

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/faults/proxy"
	"podlane/test/faults/results"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
	"podlane/test/stack/stackenv"
)

var (
	record = flag.Bool("record", false, "write the results to results.json and docs/reliability.md")
	soak   = flag.Int("soak", 1, "how often the test with random cuts runs its job")
)

// limit bounds one job.
const limit = 6 * time.Minute

// quick lets a test that harms nobody beside it run beside others where that is
// wanted: in make test.
func quick(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Parallel()
	}
}

// alone skips a test that harms all jobs of the node, or takes minutes.
func alone(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes the whole node, or minutes: make test-faults")
	}
}

// start starts a bed for one test. The bed looks after what is left.
func start(t *testing.T, settings bed.Settings, hooks runnersim.Hooks) *bed.Bed {
	t.Helper()
	b, err := bed.Start(t.Context(), bed.Options{
		NoVault: true, Root: ".", Environ: os.Environ(), Settings: settings, Concurrent: 4, Log: io.Discard, Hooks: hooks,
		Tune: func(c *runnersim.Config) { c.PrepareRetryWait, c.StageRetryWait = time.Second, time.Second },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// throughProxy makes settings with a kubeconfig like the product's that goes
// through a proxy.
func throughProxy(t *testing.T, faults proxy.Faults) (*proxy.Proxy, bed.Settings) {
	t.Helper()
	root, err := stackenv.FindRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	number, err := stackenv.ParseNumber(os.Getenv("PODLANE_STACK"))
	if err != nil {
		t.Fatal(err)
	}
	stack, err := stackenv.New(root, number)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(stack.ProductKubeconfig)
	if err != nil {
		t.Fatal("the test bed is not up; hint: make up:", err)
	}
	server := stack.APIServerURL()
	p, err := proxy.Start(t.Context(), strings.TrimPrefix(server, "https://"), faults)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	changed := strings.Replace(string(text), server, "https://"+p.Address+"\n      tls-server-name: "+stack.BridgeIP, 1)
	if changed == string(text) {
		t.Fatalf("the kubeconfig does not name %s", server)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return p, bed.Settings{"kubernetes": {"kubeconfig": fmt.Sprintf("%q", file)}}
}

// outcome is a job that has ended.
type outcome struct {
	gitlabsim.Result
	trace string
	left  string
}

func enqueue(t *testing.T, b *bed.Bed, spec gitlabsim.JobSpec) *gitlabsim.Job {
	t.Helper()
	project, err := b.GitLab.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: "faults/" + rand.Text()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := project.Commit(t.Context(), map[string]string{"README": "hello\n"}); err != nil {
		t.Fatal(err)
	}
	spec.Project = project
	job, err := b.GitLab.Enqueue(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func finish(t *testing.T, b *bed.Bed, job *gitlabsim.Job) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	result, err := job.Wait(ctx)
	trace, traceErr := job.Trace()
	if err := errors.Join(err, traceErr); err != nil {
		t.Fatalf("%v\n%s", err, tail(string(trace)))
	}
	o := outcome{Result: result, trace: string(trace), left: leftovers(t, b, job.URL())}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("job: %s %s, exit code %d\n%s", result.State, result.FailureReason, result.ExitCode, tail(o.trace))
		}
	})
	return o
}

// leftovers waits for a while until nothing is left, and says what is.
func leftovers(t *testing.T, b *bed.Bed, jobURL string) string {
	t.Helper()
	var names []string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		names = nil
		pods, err := b.Kube.Pods(t.Context(), jobURL)
		if err != nil {
			names = []string{"unknown: " + err.Error()}
			continue
		}
		secrets, err := b.Kube.Secrets(t.Context(), jobURL)
		if err != nil {
			names = []string{"unknown: " + err.Error()}
			continue
		}
		for _, p := range pods {
			names = append(names, "pod "+p.Name)
		}
		for _, s := range secrets {
			names = append(names, "secret "+s.Name)
		}
		if len(names) == 0 {
			return "nothing"
		}
	}
	return strings.Join(names, ", ")
}

func (o outcome) class() string {
	switch {
	case o.State == gitlabsim.Success:
		return "success"
	case o.FailureReason == "script_failure":
		return fmt.Sprintf("build failure, exit code %d", o.ExitCode)
	case o.FailureReason == "runner_system_failure":
		return "system failure"
	}
	return string(o.State) + " " + o.FailureReason
}

// verdict checks how a job ended and records the line of the table.
func (o outcome) verdict(t *testing.T, fault, class, line string) {
	t.Helper()
	if got := o.class(); got != class {
		t.Errorf("the job ended as %s, expected %s", got, class)
	}
	said := "nothing of it"
	if line != "" {
		said = find(o.trace, line)
		if said == "" {
			t.Errorf("the log does not have %q", line)
		}
	}
	if o.left != "nothing" {
		t.Errorf("left: %s", o.left)
	}
	note(t, fault, said, class, o.left)
}

// note records a line of the table if the test is well.
func note(t *testing.T, fault, said, class, left string) {
	t.Helper()
	t.Logf("%s: %s; the log says %s; left: %s", fault, class, said, left)
	if t.Failed() || !*record {
		return
	}
	recording.Lock()
	defer recording.Unlock()
	row := results.Row{Test: t.Name(), Fault: fault, Log: said, Class: class, Left: left}
	if err := results.Record("results.json", "../../docs/reliability.md", row); err != nil {
		t.Error(err)
	}
}

// recording is held by the test that writes its line of the table.
var recording sync.Mutex

// find returns the first line of a log that has a text.
func find(trace, text string) string {
	for line := range strings.Lines(trace) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func tail(s string) string {
	if len(s) > 5000 {
		return "…" + s[len(s)-5000:]
	}
	return s
}

// stack runs a command of the test stack.
func stack(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "./test/stack"}, args...)...)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("stack %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
