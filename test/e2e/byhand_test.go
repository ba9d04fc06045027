package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"podlane/test/joblines"
	"podlane/test/stack/stackenv"
)

// byHand makes a folder as the runner makes one for an attempt at a job.
func byHand(t *testing.T, image string) (dir, jobURL string) {
	t.Helper()
	id := mathrand.Int64N(1 << 40)
	repo := "http://gitlab.example.com/by/" + randomHex()
	response, err := json.Marshal(map[string]any{
		"id":          id,
		"job_info":    map[string]any{"project_id": 9, "name": "by hand"},
		"git_info":    map[string]any{"repo_url": repo + ".git"},
		"runner_info": map[string]any{"timeout": 300},
		"image":       map[string]any{"name": image},
		"credentials": []any{map[string]any{"type": "registry", "url": "registry.invalid", "username": "u", "password": marker}},
		"services":    []any{map[string]any{"name": stackenv.ImageService}},
		"inputs":      map[string]any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "response.json"), response, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if out, err := shared.Call(context.WithoutCancel(t.Context()), dir, "cleanup"); err != nil {
			t.Errorf("cleanup: %v: %s", err, out)
		}
	})
	return dir, fmt.Sprintf("%s/-/jobs/%d", repo, id)
}

func call(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := shared.Call(t.Context(), dir, args...)
	if err != nil {
		t.Errorf("podlane %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestPrepareThreeTimes(t *testing.T) {
	t.Parallel()
	dir, jobURL := byHand(t, stackenv.ImageJob)
	call(t, dir, "prepare")
	first, err := shared.Kube.Pods(t.Context(), jobURL)
	if err != nil || len(first) != 1 {
		t.Fatalf("%d pods, %v", len(first), err)
	}
	for range 2 {
		if out := call(t, dir, "prepare"); !strings.Contains(out, "the pod is there already") {
			t.Errorf("prepare says %s", out)
		}
	}
	again, err := shared.Kube.Pods(t.Context(), jobURL)
	if err != nil || len(again) != 1 || again[0].UID != first[0].UID {
		t.Fatalf("%d pods, %v: not the one that was there", len(again), err)
	}

	// Another attempt of the runner has another folder, and gets a pod of its
	// own in the old one's place.
	other := t.TempDir()
	response, err := os.ReadFile(filepath.Join(dir, "response.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "response.json"), response, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := call(t, other, "prepare"); !strings.Contains(out, "removing what an earlier attempt has left") {
		t.Errorf("prepare says %s", out)
	}
	third, err := shared.Kube.Pods(t.Context(), jobURL)
	if err != nil || len(third) != 1 || third[0].UID == first[0].UID {
		t.Fatalf("%d pods, %v: want one, and a new one", len(third), err)
	}
	call(t, other, "cleanup")
	call(t, other, "cleanup")
	if err := nothingLeft(t.Context(), jobURL); err != nil {
		t.Error(err)
	}
}

func TestCleanupAfterAFailedPrepare(t *testing.T) {
	t.Parallel()
	needsStack(t)
	dir, jobURL := byHand(t, shared.Stack.RegistryAddress+"/public/nothing:1")
	if out, err := shared.Call(t.Context(), dir, "prepare"); err == nil {
		t.Errorf("prepare succeeded: %s", out)
	}
	call(t, dir, "cleanup")
	if err := nothingLeft(t.Context(), jobURL); err != nil {
		t.Error(err)
	}
}

func TestCleanupWithoutPrepare(t *testing.T) {
	t.Parallel()
	dir, _ := byHand(t, stackenv.ImageJob)
	call(t, dir, "cleanup")
}

// Running a stage again by hand attaches to it: the same log, the same exit
// code, and the script has run once.
func TestRunTwiceAttaches(t *testing.T) {
	t.Parallel()
	dir, _ := byHand(t, stackenv.ImageJob)
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("echo run >> /tmp/count; cat /tmp/count; exit 5"), 0o600); err != nil {
		t.Fatal(err)
	}
	call(t, dir, "prepare")
	for range 3 {
		out, err := shared.Call(t.Context(), dir, "run", script, "build_script")
		if err == nil || joblines.Without(out) != "run\n" {
			t.Errorf("got %q, %v", out, err)
		}
		if code, err := os.ReadFile(filepath.Join(dir, "build_exit_code")); err != nil || string(code) != "5\n" {
			t.Errorf("exit code %q, %v", code, err)
		}
	}
}

func TestRunWithoutAPod(t *testing.T) {
	t.Parallel()
	dir, _ := byHand(t, stackenv.ImageJob)
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := shared.Call(t.Context(), dir, "run", script, "build_script")
	if err == nil || !strings.Contains(out, "podlane: error: pod lost: the pod podlane-p9-j") {
		t.Errorf("got %v: %s", err, out)
	}
}

// Should cleanup never come, the cluster itself takes a job's secrets away with
// its pod.
func TestSecretsGoWithThePod(t *testing.T) {
	t.Parallel()
	dir, jobURL := byHand(t, stackenv.ImageJob)
	call(t, dir, "prepare")
	pods, err := shared.Kube.Pods(t.Context(), jobURL)
	secrets, err2 := shared.Kube.Secrets(t.Context(), jobURL)
	if err := errors.Join(err, err2); err != nil || len(pods) != 1 || len(secrets) != 2 {
		t.Fatalf("%d pods and %d secrets, %v; want 1 and 2", len(pods), len(secrets), err)
	}
	for _, secret := range secrets {
		if owners := secret.OwnerReferences; len(owners) != 1 || owners[0].UID != pods[0].UID {
			t.Errorf("secret %s is owned by %v, want the pod", secret.Name, owners)
		}
	}
	if err := shared.Kube.DeletePod(t.Context(), pods[0].Name); err != nil {
		t.Fatal(err)
	}
	if err := nothingLeft(t.Context(), jobURL); err != nil {
		t.Error(err)
	}
}
