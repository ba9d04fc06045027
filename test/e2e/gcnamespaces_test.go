package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// asAccount is a kubeconfig for a service account.
func asAccount(t *testing.T, account string) string {
	t.Helper()
	text, err := os.ReadFile(shared.AdminKubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	for _, user := range config["users"].([]any) {
		user.(map[string]any)["user"].(map[string]any)["as"] = account
	}
	if text, err = yaml.Marshal(config); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// lookers calls podlane on a bed as people do, or as the CronJob does.
func lookers(ctx context.Context, b *bed.Bed, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, b.Podlane, args...)
	cmd.Env = append(os.Environ(), "PODLANE_CONFIG="+b.PeopleConfig)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("podlane %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out, err
}

type leftover struct {
	found
	Namespace string `json:"namespace"`
}

// gc runs all the time, with the rights of deploy/gc-namespaces.yaml, while jobs
// come and go in namespaces of their own: it takes what an old job has left, and
// nothing that a live one has. Whoever looks for a job finds it there, too.
func TestGCBesideLiveJobs(t *testing.T) {
	t.Parallel()
	needsStack(t)
	rights, err := os.ReadFile(filepath.Join(shared.Root(), "deploy", "gc-namespaces.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	prefix := "gc-" + randomHex()
	old := prefix + "-999999" // no job of this bed gets so far
	orphan := fmt.Sprintf("\n---\n"+`{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {app.kubernetes.io/managed-by: podlane, podlane/job: "999999"}, annotations: {podlane/timeout: "-10m"}}}`, old)
	if err := shared.Kube.Apply(t.Context(), []byte(string(rights)+orphan)); err != nil {
		t.Fatal(err)
	}
	account := "system:serviceaccount:" + stackenv.Namespace + ":podlane-gc"
	eventually(t, func() bool {
		ok, err := shared.Kube.May(t.Context(), account, "delete", "namespaces")
		return ok && err == nil
	})
	gc := []string{"gc", "--json", "--namespaces", "--grace", "0s", "--kubeconfig", asAccount(t, account)}

	b := newBed(t, asAdmin(prefix+"-{job_id}", map[string]string{"namespace_per_job": "true"}))
	barrier := b.Barrier()
	services := []gitlabsim.Image{{Name: stackenv.ImageService}}
	live := enqueue(t, b, gitlabsim.JobSpec{Script: []string{"echo it runs", barrier.Command, "echo it goes on"}, Services: services})
	t.Cleanup(barrier.Open)
	if err := barrier.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}

	// First a look: it changes nothing.
	var looked []leftover
	out, err := lookers(t.Context(), b, gc...)
	if err != nil || json.Unmarshal(out, &looked) != nil || len(looked) != 1 || looked[0].Name != old || looked[0].Deleted {
		t.Errorf("gc found %s, %v", out, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var (
		loops sync.WaitGroup
		mu    sync.Mutex
		taken []string
	)
	for range 2 {
		loops.Go(func() {
			for ctx.Err() == nil {
				out, err := lookers(ctx, b, append(gc, "--yes")...)
				if ctx.Err() != nil {
					return
				}
				var all []leftover
				if err == nil {
					err = json.Unmarshal(out, &all)
				}
				if err != nil {
					t.Errorf("%v: %s", err, out)
					return
				}
				mu.Lock()
				for _, l := range all {
					if l.Deleted {
						taken = append(taken, l.Namespace+"/"+l.Name)
					}
				}
				mu.Unlock()
			}
		})
	}
	for range 2 {
		var short []*gitlabsim.Job
		for range 2 {
			short = append(short, enqueue(t, b, gitlabsim.JobSpec{Script: []string{"echo short"}, AfterScript: []string{"echo after"}, Services: services}))
		}
		lookOn(t, b, live, prefix)
		for _, job := range short {
			finish(t, job).succeeded(t, "\nshort\n", "\nafter\n")
		}
	}
	eventually(t, func() bool {
		names, err := shared.Kube.Namespaces(t.Context())
		return err == nil && !slices.Contains(names, old)
	})
	stop()
	loops.Wait()
	barrier.Open()
	finish(t, live).succeeded(t, "\nit goes on\n")
	own := fmt.Sprintf("%s-%d", prefix, live.ID)
	if !slices.Contains(taken, "/"+old) || slices.ContainsFunc(taken, func(name string) bool { return name == "/"+own || strings.HasPrefix(name, own+"/") }) {
		t.Errorf("gc took %v", taken)
	}
}

// lookOn finds a job without being told its namespace.
func lookOn(t *testing.T, b *bed.Bed, job *gitlabsim.Job, prefix string) {
	t.Helper()
	out, err := lookers(t.Context(), b, "top", "--json")
	var jobs []struct{ URL, Namespace string }
	if err == nil {
		err = json.Unmarshal(out, &jobs)
	}
	if err != nil || !slices.ContainsFunc(jobs, func(j struct{ URL, Namespace string }) bool {
		return j.URL == job.URL() && strings.HasPrefix(j.Namespace, prefix)
	}) {
		t.Errorf("top: %v: %s", err, out)
	}
	shell := exec.CommandContext(t.Context(), b.Podlane, "shell", job.URL())
	shell.Env = append(os.Environ(), "PODLANE_CONFIG="+b.PeopleConfig)
	if err := converse(t, shell, "echo from a shell", "from a shell\n", "exit"); err != nil {
		t.Errorf("shell: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	attach := exec.CommandContext(ctx, b.Podlane, "attach", job.URL())
	attach.Env = append(os.Environ(), "PODLANE_CONFIG="+b.PeopleConfig)
	seen := &waitFor{text: "\nit runs\n", found: cancel}
	attach.Stdout = seen
	_ = attach.Run() // until it is ended
	if !strings.Contains(seen.all.String(), seen.text) {
		t.Errorf("attach wrote %s", seen.all.String())
	}
}

// waitFor calls found when a text has been written.
type waitFor struct {
	text  string
	found func()
	all   bytes.Buffer
}

// Write implements io.Writer.
func (w *waitFor) Write(p []byte) (int, error) {
	w.all.Write(p)
	if bytes.Contains(w.all.Bytes(), []byte(w.text)) {
		w.found()
	}
	return len(p), nil
}
