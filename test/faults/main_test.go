package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/faults/proxy"
	"podlane/test/faults/results"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
)

var (
	record = flag.Bool("record", false, "write the results to results.json and docs/reliability.md")
	soak   = flag.Int("soak", 1, "how often the test with random cuts runs its job")
)

// limit bounds one job.
const limit = 6 * time.Minute

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
	plain := start(t, nil, runnersim.Hooks{})
	text, err := os.ReadFile(plain.Stack.ProductKubeconfig)
	if err != nil {
		t.Skip("this cluster is not the test stack")
	}
	server := plain.Stack.APIServerURL()
	p, err := proxy.Start(t.Context(), strings.TrimPrefix(server, "https://"), faults)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	changed := strings.Replace(string(text), server, "https://"+p.Address+"\n      tls-server-name: "+plain.Stack.BridgeIP, 1)
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
	project, err := b.GitLab.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: fmt.Sprintf("faults/p%d", time.Now().UnixNano())})
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

// running waits until a job's script has printed a text.
func running(t *testing.T, job *gitlabsim.Job, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := job.WaitOutput(ctx, text); err != nil {
		trace, _ := job.Trace()
		t.Fatalf("%q has not come: %v\n%s", text, err, tail(string(trace)))
	}
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
	row := results.Row{Test: t.Name(), Fault: fault, Log: said, Class: class, Left: left}
	if err := results.Record("results.json", "../../docs/reliability.md", row); err != nil {
		t.Error(err)
	}
}

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
