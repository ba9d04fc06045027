package stagelog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLinesComeBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stages")
	now := time.Date(2026, 11, 21, 10, 0, 0, 5000, time.UTC)
	want := []Line{
		{Time: now, Stage: "prepare", Began: now, Seconds: 1.5, Class: Success, Job: 1 << 50, Pod: "p", Phases: []Phase{{Name: "schedule", Began: now, Seconds: 0.25}}},
		{Time: now, Stage: "build_script", Began: now, Class: SystemFailure, Error: "pod lost: \"x\"\n", ExitCode: 2, OutputBytes: 1 << 33},
	}
	for _, line := range want {
		if err := Append(file, 0o600, line); err != nil {
			t.Fatal(err)
		}
	}
	// What a killed writer leaves.
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"stage":"half`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	got, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if none, err := Read(file + "-absent"); err != nil || none != nil {
		t.Errorf("an absent file has %v, %v", none, err)
	}
}

// Names that dashboards rely on.
func TestNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stages")
	if err := Append(file, 0o600, Line{Stage: "cleanup", Class: SystemFailure, Job: 7}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"level": "warning", "msg": "stage ended", "stage": "cleanup", "class": "system_failure", "job": float64(7)} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
}
