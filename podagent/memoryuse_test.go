package podagent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryUse(t *testing.T) {
	tests := []struct {
		name        string
		files       map[string]string
		limit, peak Bytes
	}{
		{"version 2", map[string]string{"memory.max": "67108864\n", "memory.peak": "67108860\n"}, 64 << 20, 67108860},
		{"version 2 without a limit, on an old kernel", map[string]string{"memory.max": "max\n"}, 0, 0},
		{"version 1", map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.max_usage_in_bytes": "1048576\n"}, 0, 1 << 20},
		{"neither", nil, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if limit, peak := memoryUse(root); limit != tt.limit || peak != tt.peak {
				t.Errorf("limit %s, peak %s", limit, peak)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	for b, want := range map[Bytes]string{0: "unknown", 512: "512 bytes", 64 << 20: "64 MiB", 67108863: "63 MiB"} {
		if got := b.String(); got != want {
			t.Errorf("%d is %q, want %q", int64(b), got, want)
		}
	}
}
