package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
	"podlane/test/stack/stackenv"
)

// soon is how long after a loss a job must have ended: 10 s for podlane to
// notice, the rest for the stages that still follow, and for a machine that does
// other things, too.
const soon = 2 * time.Minute

// loss is a fault that takes something from a job.
type loss struct {
	fault, class, line string
	settings           bed.Settings
	spec               gitlabsim.JobSpec // one that waits if it has no script
	// do is the fault. It comes when the script waits at its barrier, which is
	// opened afterwards if goesOn is set.
	do     func(t *testing.T, b *bed.Bed, pod string)
	goesOn bool
}

// happens runs the job, and checks how it ended, and that its end came soon.
func (l loss) happens(t *testing.T) {
	t.Helper()
	b := start(t, l.settings, runnersim.Hooks{})
	barrier := b.Barrier()
	t.Cleanup(barrier.Open) // whatever still waits
	if len(l.spec.Script) == 0 {
		l.spec.Script = []string{"echo it goes on"}
	}
	l.spec.Script = append([]string{barrier.Command}, l.spec.Script...)
	job := enqueue(t, b, l.spec)
	if err := barrier.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.do(t, b, podOf(t, b, job))
	began := time.Now()
	if l.goesOn {
		barrier.Open()
	}
	o := finish(t, b, job)
	took := o.Finished.Sub(began)
	t.Logf("the job ended %s after the fault", took.Round(100*time.Millisecond))
	if took > soon {
		t.Errorf("the job ended %s after the fault", took)
	}
	o.verdict(t, l.fault, l.class, l.line)
}

func podOf(t *testing.T, b *bed.Bed, job *gitlabsim.Job) string {
	t.Helper()
	pods, err := b.Kube.Pods(t.Context(), job.URL())
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	return pods[0].Name
}

const (
	systemFailure = "system failure"
	longGrace     = `"10m"`
)

func TestPodDeleted(t *testing.T) {
	quick(t)
	loss{
		fault: "pod deleted by force, whose node lets the script go on", class: systemFailure, line: "podlane: error: pod lost: ",
		settings: bed.Settings{"pod": {"termination_grace_period": longGrace}},
		do: func(t *testing.T, b *bed.Bed, pod string) {
			if err := b.Kube.DeletePod(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
		},
	}.happens(t)
}

func TestPodDeletedWithGrace(t *testing.T) {
	quick(t)
	loss{
		fault: "pod deleted; the script does not end in its grace period", class: systemFailure, line: "podlane: error: pod lost: it was deleted",
		do: func(t *testing.T, b *bed.Bed, pod string) {
			if err := b.Kube.EndPod(t.Context(), pod, 5); err != nil {
				t.Fatal(err)
			}
		},
	}.happens(t)
}

func TestPodEvicted(t *testing.T) {
	quick(t)
	loss{
		fault: "pod evicted, as by a drain of its node", class: systemFailure, line: "podlane: error: pod lost: evicted",
		settings: bed.Settings{"pod": {"termination_grace_period": `"1s"`}},
		do: func(t *testing.T, b *bed.Bed, pod string) {
			if err := b.Kube.Evict(t.Context(), pod); err != nil {
				t.Fatal(err)
			}
		},
	}.happens(t)
}

// A node that is taken out of the cluster while its kubelet goes on.
func TestNodeDeleted(t *testing.T) {
	alone(t)
	tests := []struct{ name, fault, line string }{
		{"watched", "node deleted, with deploy/node-watch.yaml", "podlane: error: pod lost: its node "},
		{"not watched", "node deleted; the cluster deletes its pods a minute later", "podlane: error: pod lost: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			loss{fault: tt.fault, class: systemFailure, line: tt.line, do: func(t *testing.T, b *bed.Bed, pod string) {
				if tt.name == "watched" {
					watchNodes(t, b)
				}
				// Most scripts end before their pod is watched.
				time.Sleep(5 * time.Second)
				node := nodeOf(t, b, pod)
				t.Cleanup(func() { bringBack(t, b, node) })
				if err := b.Kube.DeleteNode(t.Context(), node); err != nil {
					t.Fatal(err)
				}
			}}.happens(t)
		})
	}
}

func nodeOf(t *testing.T, b *bed.Bed, pod string) string {
	t.Helper()
	pods, err := b.Kube.Pods(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		if p.Name == pod {
			return p.Spec.NodeName
		}
	}
	t.Fatalf("no pod %s", pod)
	return ""
}

func watchNodes(t *testing.T, b *bed.Bed) {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(b.Root(), "deploy", "node-watch.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Kube.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Kube.Remove(context.WithoutCancel(t.Context()), manifest); err != nil {
			t.Error(err)
		}
	})
}

// bringBack makes a kubelet register its node anew.
func bringBack(t *testing.T, b *bed.Bed, node string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", "./test/stack", "restart", "kubelet")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("restart kubelet: %v: %s", err, out)
	}
	for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		there, err := b.Kube.Node(ctx, node)
		if err != nil {
			continue
		}
		for _, c := range there.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return
			}
		}
	}
	t.Fatalf("node %s has not come back", node)
}

// eat takes more memory than a container may have.
const eat = `tail /dev/zero || echo "tail ended with $?"; exit 9`

// byItself is for scripts that bring the fault themselves.
func byItself(*testing.T, *bed.Bed, string) {}

func TestOutOfMemory(t *testing.T) {
	quick(t)
	limited := bed.Settings{"resources.build": {"memory_limit": `"96Mi"`}}
	t.Run("script", func(t *testing.T) {
		quick(t)
		loss{
			fault: "the script's program needs more memory than the build container has", class: "build failure, exit code 9",
			line:     "warning: the kernel killed 1 process of the build container: its memory ran out, limit 96 MiB",
			settings: limited, spec: gitlabsim.JobSpec{Script: []string{eat}}, do: byItself, goesOn: true,
		}.happens(t)
	})
	// The kernel kills whom it likes best; with version 2 of control groups the
	// kubelet has the whole container killed.
	t.Run("build", func(t *testing.T) {
		quick(t)
		// A pod whose requests are its limits is the kernel's last choice, but for
		// the process that offers itself.
		guaranteed := map[string]string{"cpu_request": `"200m"`, "cpu_limit": `"200m"`, "memory_request": `"96Mi"`, "memory_limit": `"96Mi"`}
		loss{
			fault: "the build container is killed because its memory ran out", class: systemFailure,
			line:     "podlane: error: out of memory: container build was killed when it had used all of its limit of 96Mi",
			settings: bed.Settings{"resources.build": guaranteed, "resources.helper": guaranteed},
			spec:     gitlabsim.JobSpec{Script: []string{"echo 1000 > /proc/1/oom_score_adj", eat}}, do: byItself, goesOn: true,
		}.happens(t)
	})
	t.Run("git", func(t *testing.T) {
		quick(t)
		b := start(t, bed.Settings{"resources.helper": {"memory_limit": `"96Mi"`}}, runnersim.Hooks{})
		job := enqueueIn(t, b, map[string]string{"big": noise(112 << 20)}, gitlabsim.JobSpec{Script: []string{"echo it runs"}})
		finish(t, b, job).verdict(t, "git needs more memory than the helper container has", systemFailure,
			"of the helper container: its memory ran out, limit 96 MiB")
	})
	t.Run("helper", func(t *testing.T) {
		quick(t)
		b := start(t, bed.Settings{"resources.helper": {"memory_limit": `"24Mi"`}}, runnersim.Hooks{})
		job := enqueue(t, b, gitlabsim.JobSpec{
			Script:    []string{"head -c 50M /dev/urandom > big"},
			Artifacts: []gitlabsim.Artifact{{Paths: []string{"big"}, When: "always"}},
		})
		finish(t, b, job).verdict(t, "an artifact of 50 MB is uploaded by a helper container with 24 MiB of memory", "success", "")
	})
	t.Run("service", func(t *testing.T) {
		quick(t)
		b := start(t, bed.Settings{"resources.service": {"memory_limit": `"32Mi"`}}, runnersim.Hooks{})
		service, script := b.Barrier(), b.Barrier()
		job := enqueue(t, b, gitlabsim.JobSpec{
			Script:   []string{script.Command, "exit 4"},
			Services: []gitlabsim.Image{{Name: stackenv.ImageJobBusybox, Alias: "db", Entrypoint: []string{"sh", "-c"}, Command: []string{service.Command + "; exec tail /dev/zero"}}},
		})
		for _, barrier := range []*bed.Barrier{service, script} {
			if err := barrier.Reached(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		service.Open()
		waitEnded(t, b, podOf(t, b, job), "svc-0")
		script.Open()
		finish(t, b, job).verdict(t, "a service runs out of memory; the script fails without it", "build failure, exit code 4",
			"warning: service db was killed when it had used all of its limit of 32Mi")
	})
}

// waitEnded waits until the API server knows that a container has ended.
func waitEnded(t *testing.T, b *bed.Bed, pod, container string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		pods, err := b.Kube.Pods(ctx, "")
		if err != nil {
			continue
		}
		for _, p := range pods {
			for _, s := range p.Status.ContainerStatuses {
				if p.Name == pod && s.Name == container && s.State.Terminated != nil {
					return
				}
			}
		}
	}
	t.Fatalf("container %s has not ended", container)
}

// enqueueIn enqueues a job of a project with such files.
func enqueueIn(t *testing.T, b *bed.Bed, files map[string]string, spec gitlabsim.JobSpec) *gitlabsim.Job {
	t.Helper()
	project, err := b.GitLab.AddProject(t.Context(), gitlabsim.ProjectSpec{Path: fmt.Sprintf("faults/p%d", time.Now().UnixNano())})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := project.Commit(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	spec.Project = project
	job, err := b.GitLab.Enqueue(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// noise is text that nothing can make smaller.
func noise(size int) string {
	text := make([]byte, size)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(text)
	return string(text)
}

func TestHelperKilled(t *testing.T) {
	quick(t)
	loss{
		fault: "process 1 of the helper container killed while the script runs", class: systemFailure, line: "podlane: error: container ended: helper ended with exit code 137",
		do: func(t *testing.T, b *bed.Bed, pod string) { killFirst(t, b, pod, "helper") },
	}.happens(t)
}

func TestBuildContainerKilled(t *testing.T) {
	quick(t)
	loss{
		fault: "process 1 of the build container killed while the script runs", class: systemFailure, line: "podlane: error: container ended: build ended with exit code 137",
		do: func(t *testing.T, b *bed.Bed, pod string) { killFirst(t, b, pod, "build") },
	}.happens(t)
}

func TestSupervisorKilled(t *testing.T) {
	quick(t)
	loss{
		fault: "podlane's process beside the script killed", class: systemFailure, line: "podlane: error: the process that watched over the script was killed",
		spec: gitlabsim.JobSpec{Script: []string{"kill -9 $(cut -d' ' -f4 /proc/$$/stat)", "sleep 300"}}, do: byItself, goesOn: true,
	}.happens(t)
}

func TestServiceKilled(t *testing.T) {
	quick(t)
	loss{
		fault: "a service's container killed; the script goes on and fails without it", class: "build failure, exit code 4", line: "warning: service db ended with exit code 137",
		spec: gitlabsim.JobSpec{Script: []string{"exit 4"}, Services: []gitlabsim.Image{{Name: stackenv.ImageService, Alias: "db"}}},
		do: func(t *testing.T, b *bed.Bed, pod string) {
			killFirst(t, b, pod, "svc-0")
			waitEnded(t, b, pod, "svc-0")
		}, goesOn: true,
	}.happens(t)
}

// A script that starts more processes than it may. The stage after it works.
func TestOutOfProcesses(t *testing.T) {
	quick(t)
	loss{
		fault: "the script starts more processes than the pod may have", class: "build failure, exit code 2", line: "warning: the build container could start no more processes",
		spec: gitlabsim.JobSpec{
			Image:  gitlabsim.Image{Name: stackenv.ImageJobBusybox},
			Script: []string{"i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done"}, AfterScript: []string{"echo after it"},
		},
		do: func(t *testing.T, b *bed.Bed, pod string) { limitProcesses(t, b, pod, "build", 60) }, goesOn: true,
	}.happens(t)
}

const smallDisk = "'''\nspec:\n  volumes:\n    - name: builds\n      emptyDir: {medium: Memory, sizeLimit: 8Mi}\n'''"

func TestDiskFull(t *testing.T) {
	quick(t)
	settings := bed.Settings{"kubernetes": {"pod_template": smallDisk}}
	t.Run("script", func(t *testing.T) {
		quick(t)
		loss{
			fault: "the script fills the volume of the checkout", class: "build failure, exit code 1", line: "No space left on device",
			settings: settings, spec: gitlabsim.JobSpec{Script: []string{"head -c 20M /dev/zero > big"}}, do: byItself, goesOn: true,
		}.happens(t)
	})
	t.Run("git", func(t *testing.T) {
		quick(t)
		b := start(t, settings, runnersim.Hooks{})
		job := enqueueIn(t, b, map[string]string{"big": noise(20 << 20)}, gitlabsim.JobSpec{Script: []string{"echo it runs"}})
		finish(t, b, job).verdict(t, "the checkout does not fit on its volume", systemFailure, "podlane: error: disk full: stage get_sources: ")
	})
}

// killFirst kills process 1 of a container, as the kernel does when memory runs
// out.
func killFirst(t *testing.T, b *bed.Bed, pod, container string) {
	t.Helper()
	if err := syscall.Kill(firstProcess(t, b, pod, container), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// firstProcess is the number of a container's process 1 on this machine.
func firstProcess(t *testing.T, b *bed.Bed, pod, container string) int {
	t.Helper()
	ctr := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "ctr", append([]string{"--address", b.Stack.ContainerdSocket, "--namespace", "k8s.io"}, args...)...).Output()
		if err != nil {
			t.Fatalf("ctr %s: %v", strings.Join(args, " "), err)
		}
		return string(out)
	}
	ids := strings.Fields(ctr("containers", "list", "--quiet", fmt.Sprintf(`labels."io.kubernetes.pod.name"==%s,labels."io.kubernetes.container.name"==%s`, pod, container)))
	if len(ids) != 1 {
		t.Fatalf("containers %q", ids)
	}
	for line := range strings.Lines(ctr("tasks", "list")) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != ids[0] {
			continue
		}
		if pid, err := strconv.Atoi(fields[1]); err == nil && pid > 1 {
			return pid
		}
	}
	t.Fatalf("container %s does not run", ids[0])
	return 0
}

// limitProcesses lets a container have so many more than it has.
func limitProcesses(t *testing.T, b *bed.Bed, pod, container string, more int) {
	t.Helper()
	dir := groupOf(t, firstProcess(t, b, pod, container))
	text, err := os.ReadFile(filepath.Join(dir, "pids.current"))
	if err != nil {
		t.Fatal(err)
	}
	current, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pids.max"), []byte(strconv.Itoa(current+more)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// groupOf is the folder of a process's control group, in either version, that
// limits processes.
func groupOf(t *testing.T, pid int) string {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	dir := ""
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case parts[1] == "pids":
			return filepath.Join("/sys/fs/cgroup/pids", parts[2])
		case parts[1] == "":
			dir = filepath.Join("/sys/fs/cgroup", parts[2])
		}
	}
	return dir
}
