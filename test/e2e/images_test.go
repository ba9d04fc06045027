package e2e

import (
	"os/exec"
	"runtime"
	"testing"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// An image that can't be had with one pull policy is tried with the next. The
// helper image is had with the first.
func TestPullPoliciesInOrder(t *testing.T) {
	t.Parallel()
	needsStack(t)
	b := newBed(t, bed.Settings{
		"pod":    {"pull_policy": `["Never", "IfNotPresent"]`},
		"images": {"allowed_images": quotedList(shared.Stack.RegistryAddress + "/**")},
	})
	// A node that has an image runs it without asking the registry. This name is
	// this test's own.
	image := shared.Stack.PublicImage()
	cmd := exec.CommandContext(t.Context(), "ctr", "--address", b.Stack.ContainerdSocket, "--namespace", "k8s.io", "images", "rm", "--sync", image)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Run("the second works", func(t *testing.T) {
		t.Parallel()
		runOn(t, b, gitlabsim.JobSpec{Image: gitlabsim.Image{Name: image}, Script: []string{"echo pulled at last"}}).
			succeeded(t, "warning: image not found: "+image+" is not on the node", "trying again with another pull policy", "\npulled at last\n")
	})
	t.Run("the job allows only the first", func(t *testing.T) {
		t.Parallel()
		missing := shared.Stack.RegistryAddress + "/public/missing:1"
		runOn(t, b, gitlabsim.JobSpec{Image: gitlabsim.Image{Name: missing, PullPolicy: []string{"never"}}, Script: []string{"echo never"}}).
			failed(t, 1, "podlane: error: image not found: "+missing+" is not on the node")
	})
	t.Run("another registry", func(t *testing.T) {
		t.Parallel()
		runOn(t, b, gitlabsim.JobSpec{Image: gitlabsim.Image{Name: "docker.io/library/alpine"}, Script: []string{"echo never"}}).
			failed(t, 1, "podlane: error: image docker.io/library/alpine is not allowed here: images.allowed_images in the settings of podlane allows "+shared.Stack.RegistryAddress+"/**")
	})
}

// The image's own user, entrypoint and platform are the job's to say.
func TestImageOptions(t *testing.T) {
	t.Parallel()
	run(t, gitlabsim.JobSpec{
		Image: gitlabsim.Image{
			Name: stackenv.ImageJob, Entrypoint: []string{"/usr/bin/env", "FROM_ENTRYPOINT=yes"},
			ExecutorOpts: map[string]any{"kubernetes": map[string]any{"user": "1234:2345"}, "docker": map[string]any{"platform": "linux/" + runtime.GOARCH}},
		},
		Script: []string{`echo "I am $(id -u):$(id -g), $FROM_ENTRYPOINT"`, "touch here", "grep -E '^(NoNewPrivs|Seccomp|CapBnd):' /proc/self/status"},
	}).succeeded(t, "\nI am 1234:2345, yes\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n")
}

func quotedList(s string) string { return "[" + quoted(s) + "]" }
