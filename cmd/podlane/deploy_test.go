package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"podlane/executor/settings"
)

// The CronJob calls a command that there is, with flags that there are, and
// settings that can be read.
func TestCronJobCallsGC(t *testing.T) {
	text, err := os.ReadFile("../../deploy/gc-cronjob.yaml")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^ *command: \[(.*)\]$`).FindStringSubmatch(string(text))
	if command == nil {
		t.Fatal("there is no command in a line")
	}
	args := strings.Split(command[1], ", ")
	found, rest, err := (&app{}).command(nil).Find(arguments(args))
	if err != nil || found.Name() != "gc" {
		t.Fatalf("%v is not podlane gc: %v", args, err)
	}
	if err := found.ParseFlags(rest); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	if yes, err := found.Flags().GetBool("yes"); err != nil || !yes || found.Flags().NArg() > 0 {
		t.Errorf("%v deletes nothing, or only of some jobs", args)
	}

	_, config, ok := strings.Cut(string(text), "\n  podlane.toml: |\n")
	config, _, _ = strings.Cut(config, "\n---\n")
	file := filepath.Join(t.TempDir(), "podlane.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := settings.Load(file); !ok || err != nil || s.Kubernetes.Namespace != "podlane-ci" {
		t.Errorf("its settings: %v, namespace %s", err, s.Kubernetes.Namespace)
	}
}
