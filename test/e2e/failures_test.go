package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

func TestImageThatDoesNotExist(t *testing.T) {
	t.Parallel()
	needsStack(t)
	image := shared.Stack.RegistryAddress + "/public/nothing:1"
	o := run(t, gitlabsim.JobSpec{Image: gitlabsim.Image{Name: image}, Script: []string{"true"}})
	o.failed(t, 1, "podlane: error: image not found: "+image)
	if o.Ran() > time.Minute { // five minutes if pulls were tried again
		t.Errorf("it took %s to say so", o.Ran())
	}
}

func TestInvalidImageName(t *testing.T) {
	t.Parallel()
	run(t, gitlabsim.JobSpec{Image: gitlabsim.Image{Name: "Not//An:Image:Name"}, Script: []string{"true"}}).
		failed(t, 1, `podlane: error: invalid image name: "Not//An:Image:Name"`)
}

func TestPull(t *testing.T) {
	t.Parallel()
	needsStack(t)
	password, err := os.ReadFile(shared.Stack.RegistryPasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	b := shared
	// A node that has an image runs it without asking the registry.
	forget := func() {
		cmd := exec.CommandContext(t.Context(), "ctr", "--address", b.Stack.ContainerdSocket, "--namespace", "k8s.io", "images", "rm", "--sync", b.Stack.PrivateImage())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	forget()
	private := gitlabsim.Image{Name: shared.Stack.PrivateImage()}
	login := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s:%s", stackenv.RegistryUser, password))
	t.Run("denied", func(t *testing.T) {
		runOn(t, b, gitlabsim.JobSpec{Image: private, Script: []string{"true"}}).
			failed(t, 1, "podlane: error: image pull denied: "+private.Name, "hint: does the job have credentials")
	})
	t.Run("wrong password", func(t *testing.T) {
		runOn(t, b, gitlabsim.JobSpec{
			Image: private, Script: []string{"true"},
			Credentials: []gitlabsim.Credential{{Type: "registry", URL: b.Stack.RegistryAddress, Username: stackenv.RegistryUser, Password: "wrong"}},
		}).failed(t, 1, "podlane: error: image pull denied")
	})
	t.Run("credentials of the job", func(t *testing.T) {
		o := runOn(t, b, gitlabsim.JobSpec{
			Image: private, Script: []string{"echo pulled and run"},
			Credentials: []gitlabsim.Credential{{Type: "registry", URL: b.Stack.RegistryAddress, Username: stackenv.RegistryUser, Password: string(password)}},
		})
		o.succeeded(t, "\npulled and run\n")
		// A pull as short as this one can be over before its events are here.
		if strings.Contains(o.trace, "pulling image ") {
			o.logs(t, "pulled image "+private.Name+" in ")
		}
	})
	forget()
	t.Run("DOCKER_AUTH_CONFIG", func(t *testing.T) {
		runOn(t, b, gitlabsim.JobSpec{
			Image: private, Script: []string{"echo pulled and run"},
			Variables: []gitlabsim.Variable{{Key: "DOCKER_AUTH_CONFIG", Value: fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, b.Stack.RegistryAddress, login), Raw: true}},
		}).succeeded(t, "\npulled and run\n")
	})
	t.Run("secrets of the settings and of the service account", func(t *testing.T) {
		pullSecrets(t, private.Name, login)
	})
}

// pullSecrets runs jobs whose image needs a pull secret that was there before.
func pullSecrets(t *testing.T, image, login string) {
	id := randomHex()
	config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, shared.Stack.RegistryAddress, login)
	objects := []byte(strings.NewReplacer("ID", id, "NAMESPACE", stackenv.Namespace, "CONFIG", base64.StdEncoding.EncodeToString([]byte(config))).Replace(`
apiVersion: v1
kind: Secret
metadata: {name: registry-ID, namespace: NAMESPACE}
type: kubernetes.io/dockerconfigjson
data: {.dockerconfigjson: CONFIG}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: puller-ID, namespace: NAMESPACE}
imagePullSecrets: [{name: registry-ID}]
`))
	t.Cleanup(func() {
		if err := shared.Kube.Remove(context.WithoutCancel(t.Context()), objects); err != nil {
			t.Error(err)
		}
	})
	if err := shared.Kube.Apply(t.Context(), objects); err != nil {
		t.Fatal(err)
	}
	for name, own := range map[string]map[string]string{
		"settings": {"image_pull_secrets": quotedList("registry-" + id)},
		"account":  {"service_account": quoted("puller-" + id), "service_account_pull_secrets": "true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := asAdmin(stackenv.Namespace, nil)
			s["pod"], s["images"] = own, map[string]string{"allowed_pull_policies": quotedList("Always")}
			runOn(t, newBed(t, s), gitlabsim.JobSpec{
				Image: gitlabsim.Image{Name: image, PullPolicy: []string{"always"}}, Script: []string{"echo pulled and run"},
			}).succeeded(t, "\npulled and run\n")
		})
	}
}

func quoted(s string) string { return fmt.Sprintf("%q", s) }

func TestUnschedulable(t *testing.T) {
	t.Parallel()
	b := newBed(t, bed.Settings{"resources.build": {"cpu_request": `"500"`}, "job": {"start_timeout": `"6s"`}})
	o := runOn(t, b, gitlabsim.JobSpec{Script: []string{"true"}})
	o.systemFailed(t, "waiting for a node: 0/", "Insufficient cpu", "podlane: error: not started in time: gave up after", ": no node for the pod")
	// A reason is told once in each of the runner's three attempts that gets so
	// far.
	if n := strings.Count(o.trace, "waiting for a node"); n > 3 {
		t.Errorf("the reason is told %d times", n)
	}
}

func TestQuota(t *testing.T) {
	// Not parallel: the quota holds for the whole namespace.
	remove, err := shared.Kube.CreateQuota(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := remove(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	run(t, gitlabsim.JobSpec{Script: []string{"true"}}).systemFailed(t, "podlane: error: quota exceeded: ", "exceeded quota: none")
}

func TestNoSuchHelperImage(t *testing.T) {
	t.Parallel()
	needsStack(t)
	b := newBed(t, bed.Settings{"job": {"helper_image": `"` + shared.Stack.RegistryAddress + `/public/no-helper:1"`}})
	runOn(t, b, gitlabsim.JobSpec{Script: []string{"true"}}).failed(t, 1, "podlane: error: image not found: "+shared.Stack.RegistryAddress+"/public/no-helper:1")
}

func TestPodDeletedWhileTheScriptRuns(t *testing.T) {
	t.Parallel()
	barrier := shared.Barrier()
	job := enqueue(t, shared, gitlabsim.JobSpec{Script: []string{barrier.Command}})
	if err := barrier.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}
	pods, err := shared.Kube.Pods(t.Context(), job.URL())
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods, %v", len(pods), err)
	}
	began := time.Now()
	if err := shared.Kube.DeletePod(t.Context(), pods[0].Name); err != nil {
		t.Fatal(err)
	}
	finish(t, job).systemFailed(t, "podlane: error: pod lost: ")
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %s to notice", took)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, script string }{
		{"a script that listens", "trap 'echo got TERM; exit 1' TERM; echo started; sleep 300 & wait"},
		{"a script that does not", "trap '' TERM; echo started; while :; do sleep 1; done"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			job := enqueue(t, shared, gitlabsim.JobSpec{Script: []string{tt.script}, AfterScript: []string{"echo after, $CI_JOB_STATUS"}})
			if err := job.WaitOutput(t.Context(), "\nstarted"); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			job.Cancel()
			o := finish(t, job)
			if o.State != gitlabsim.Canceled {
				t.Errorf("the job is %s", o.State)
			}
			o.logs(t, "after, canceled")
			if took := o.Finished.Sub(began); took > 50*time.Second {
				t.Errorf("cancelling took %s", took)
			}
		})
	}
	t.Run("before the script, for good", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, bed.Settings{"resources.build": {"cpu_request": `"500"`}})
		job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{"echo never"}})
		if err := job.WaitOutput(t.Context(), "waiting for a node"); err != nil {
			t.Fatal(err)
		}
		job.ForceCancel()
		finish(t, job)
	})
}

func TestJobTimeout(t *testing.T) {
	t.Parallel()
	o := run(t, gitlabsim.JobSpec{Script: []string{"echo started", "sleep 300"}, AfterScript: []string{"echo afterwards"}, Timeout: 40 * time.Second})
	if o.State != gitlabsim.Failed || o.FailureReason != "job_execution_timeout" {
		t.Errorf("the job is %s, %s", o.State, o.FailureReason)
	}
	o.logs(t, "\nstarted\n")
	o.doesNotLog(t, "\nafterwards\n")
}
