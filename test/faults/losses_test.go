package faults

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
	"podlane/test/stack/stackenv"
)

// soon is how long after a loss a job must have ended: 10 s for podlane to
// notice, the rest for a busy machine and the stages that still follow.
const soon = 45 * time.Second

// lose runs a job whose pod something happens to, and checks that its end comes
// soon after.
func lose(t *testing.T, fault, class, line string, settings bed.Settings, spec gitlabsim.JobSpec, do func(b *bed.Bed, job *gitlabsim.Job)) {
	t.Helper()
	b := start(t, settings, runnersim.Hooks{})
	job := enqueue(t, b, spec)
	running(t, job, "\nit runs")
	do(b, job)
	began := time.Now()
	o := finish(t, b, job)
	if took := o.Finished.Sub(began); took > soon {
		t.Errorf("the job ended %s after the fault", took)
	}
	o.verdict(t, fault, class, line)
}

func podOf(t *testing.T, b *bed.Bed, job *gitlabsim.Job) string {
	t.Helper()
	pods, err := b.Kube.Pods(t.Context(), job.URL())
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	return pods[0].Name
}

var sleeps = gitlabsim.JobSpec{Script: []string{"echo it runs", "sleep 300"}}

func TestPodDeleted(t *testing.T) {
	lose(t, "pod deleted", "system failure", "podlane: error: pod lost: ", nil, sleeps, func(b *bed.Bed, job *gitlabsim.Job) {
		if err := b.Kube.DeletePod(t.Context(), podOf(t, b, job)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPodEvicted(t *testing.T) {
	lose(t, "pod evicted, as by a drain of its node", "system failure", "podlane: error: pod lost: ", bed.Settings{"pod": {"termination_grace_period": `"1s"`}}, sleeps, func(b *bed.Bed, job *gitlabsim.Job) {
		if err := b.Kube.Evict(t.Context(), podOf(t, b, job)); err != nil {
			t.Fatal(err)
		}
	})
}

// eat takes more memory than a container may have.
const eat = `echo it runs; sleep 2; tail /dev/zero || echo "tail ended with $?"; exit 9`

func TestOutOfMemory(t *testing.T) {
	t.Run("script", func(t *testing.T) {
		lose(t, "the script's program needs more memory than the build container has", "build failure, exit code 9", "warning: the kernel killed 1 process",
			bed.Settings{"resources.build": {"memory_limit": `"96Mi"`}}, gitlabsim.JobSpec{Script: []string{eat}}, func(*bed.Bed, *gitlabsim.Job) {})
	})
	t.Run("helper", func(t *testing.T) {
		b := start(t, bed.Settings{"resources.helper": {"memory_limit": `"24Mi"`}}, runnersim.Hooks{})
		job := enqueue(t, b, gitlabsim.JobSpec{
			Script:    []string{"head -c 50M /dev/urandom > big"},
			Artifacts: []gitlabsim.Artifact{{Paths: []string{"big"}, When: "always"}},
		})
		o := finish(t, b, job)
		t.Logf("with 24 MiB for the helper an upload of 50 MB ends as %s", o.class())
		note(t, "an artifact of 50 MB is uploaded by a helper container with 24 MiB of memory", "nothing of it", o.class(), o.left)
	})
}

func TestHelperKilled(t *testing.T) {
	lose(t, "process 1 of the helper container killed while the script of a job with artifacts runs", "system failure", "podlane: error: container ended: ", nil,
		gitlabsim.JobSpec{Script: []string{"echo it runs", "sleep 10", "echo done > file"}, Artifacts: []gitlabsim.Artifact{{Paths: []string{"file"}}}}, func(b *bed.Bed, job *gitlabsim.Job) {
			killFirst(t, b, podOf(t, b, job), "helper")
		})
}

func TestBuildContainerKilled(t *testing.T) {
	lose(t, "process 1 of the build container killed while the script runs", "system failure", "podlane: error: container ended: ", nil, sleeps, func(b *bed.Bed, job *gitlabsim.Job) {
		killFirst(t, b, podOf(t, b, job), "build")
	})
}

func TestSupervisorKilled(t *testing.T) {
	lose(t, "podlane's process beside the script killed", "system failure", "podlane: error: the process that watched over the script was killed",
		nil, gitlabsim.JobSpec{Script: []string{"echo it runs", "sleep 2", "kill -9 $(cut -d' ' -f4 /proc/$$/stat)", "sleep 300"}}, func(*bed.Bed, *gitlabsim.Job) {})
}

func TestServiceKilled(t *testing.T) {
	lose(t, "a service's container killed; the script goes on and fails without it", "build failure, exit code 4", "service", nil,
		gitlabsim.JobSpec{
			Script:   []string{"echo it runs", "until [ -e /tmp/never ] || [ $SECONDS -gt 8 ]; do sleep 0.2; done; exit 4"},
			Services: []gitlabsim.Image{{Name: stackenv.ImageService, Alias: "db"}},
		}, func(b *bed.Bed, job *gitlabsim.Job) { killFirst(t, b, podOf(t, b, job), "svc-0") })
}

// killFirst kills process 1 of a container, as the kernel does when memory runs
// out.
func killFirst(t *testing.T, b *bed.Bed, pod, container string) {
	t.Helper()
	list := exec.CommandContext(t.Context(), "ctr", "--address", b.Stack.ContainerdSocket, "--namespace", "k8s.io", "containers", "list", "--quiet",
		fmt.Sprintf(`labels."io.kubernetes.pod.name"==%s,labels."io.kubernetes.container.name"==%s`, pod, container))
	id, err := list.Output()
	if err != nil || len(strings.Fields(string(id))) != 1 {
		t.Fatalf("containers %q, %v", id, err)
	}
	kill := exec.CommandContext(t.Context(), "ctr", "--address", b.Stack.ContainerdSocket, "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", strings.TrimSpace(string(id)))
	if out, err := kill.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
