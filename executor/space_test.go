package executor

import (
	"errors"
	"io"
	"strings"
	"testing"

	"podlane/executor/pod"
	"podlane/podagent"
)

func TestSpaceWatch(t *testing.T) {
	tests := []struct {
		name   string
		pieces []string
		want   string
	}{
		{"nothing", []string{"Fetching changes\n", "done\n"}, ""},
		{"git", []string{"Fetching\nerror: unable to write file big: No space left on device\nfatal: more\n"}, "error: unable to write file big: No space left on device"},
		{"in pieces", []string{"Fetching\nfatal: write error: No spa", "ce left on device\n"}, "fatal: write error: No space left on device"},
		{"over a line's end", []string{"No space left\n", " on device\n"}, ""},
		{"after progress", []string{"Receiving objects: 10%\rReceiving objects: 20%\rfatal: write error: No space left on device\n"}, "fatal: write error: No space left on device"},
		{"a long line", []string{strings.Repeat("x", 5000), "\nopen y: no space left on device\n"}, "open y: no space left on device"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			watch := &spaceWatch{w: &out}
			for _, p := range tt.pieces {
				if _, err := io.WriteString(watch, p); err != nil {
					t.Fatal(err)
				}
			}
			if watch.line != tt.want || out.String() != strings.Join(tt.pieces, "") {
				t.Errorf("got %q; passed on %d bytes", watch.line, out.Len())
			}
		})
	}
}

// What git could not help is not the author's.
func TestStarved(t *testing.T) {
	tests := []struct {
		name   string
		record podagent.ExitRecord
		disk   string
		want   string
	}{
		{"failed", podagent.ExitRecord{Code: 1}, "", ""},
		{"memory", podagent.ExitRecord{Code: 137, OutOfMemory: 1, MemoryLimit: 64 << 20, MemoryPeak: 64 << 20}, "", "out of memory: the kernel killed 1 process of the helper container: its memory ran out, limit 64 MiB, used at most 64 MiB; hint: resources.helper.memory_limit in the settings of podlane"},
		{"disk", podagent.ExitRecord{Code: 128}, "fatal: write error: No space left on device", "disk full: stage get_sources: fatal: write error: No space left on device"},
		{"processes", podagent.ExitRecord{Code: 128, OutOfProcesses: true}, "", "out of processes: the helper container could start no more processes when the script failed: the pod has as many as its node allows"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := starved("get_sources", &tt.record, tt.disk)
			if tt.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var f *pod.Failure
			if !errors.As(err, &f) || f.Error() != tt.want || f.Fault() != pod.FaultSystem {
				t.Errorf("got %v", err)
			}
		})
	}
}
