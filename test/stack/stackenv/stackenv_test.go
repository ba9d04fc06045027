package stackenv_test

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"podlane/test/stack/stackenv"
)

func TestStacksShareNothing(t *testing.T) {
	const firstEphemeralPort = 32768
	taken := map[any]int{}
	claim := func(number int, thing any) {
		t.Helper()
		if other, ok := taken[thing]; ok {
			t.Errorf("stacks %d and %d both have %v", other, number, thing)
		}
		taken[thing] = number
	}
	for number := range stackenv.MaxNumber + 1 {
		s, err := stackenv.New("/checkout", number)
		if err != nil {
			t.Fatal(err)
		}
		for _, thing := range []any{s.Dir, s.RunDir, s.Bridge, s.BridgeIP, s.PodSubnet, s.ContainerdSocket} {
			claim(number, thing)
		}
		ports := reflect.ValueOf(s.Ports)
		for i := range ports.NumField() {
			port := int(ports.Field(i).Int())
			claim(number, port)
			if port < 1024 || port >= firstEphemeralPort {
				t.Errorf("stack %d: port %d is not one to listen on", number, port)
			}
		}
	}
}

func TestBridgeNameFitsTheKernel(t *testing.T) {
	s, err := stackenv.New("/checkout", stackenv.MaxNumber)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Bridge) > 15 { // IFNAMSIZ without its zero byte
		t.Errorf("%q is too long for a network interface", s.Bridge)
	}
}

func TestParseNumber(t *testing.T) {
	tests := []struct {
		value string
		want  int
		ok    bool
	}{
		{"", 0, true},
		{"0", 0, true},
		{"49", 49, true},
		{"50", 0, false},
		{"-1", 0, false},
		{"x", 0, false},
		{"1.5", 0, false},
		{" 1", 0, false},
	}
	for _, test := range tests {
		got, err := stackenv.ParseNumber(test.value)
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("ParseNumber(%q) = %d, %v", test.value, got, err)
		}
	}
}

func TestFindRoot(t *testing.T) {
	root := t.TempDir()
	inner := filepath.Join(root, "test", "module", "deep")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		"go.mod":             "module podlane\n\ngo 1.26\n",
		"test/module/go.mod": "module podlane/test/module\n",
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := stackenv.FindRoot(inner)
	if err != nil || got != root {
		t.Errorf("FindRoot = %q, %v; expected %q", got, err, root)
	}
	if got, err := stackenv.FindRoot(t.TempDir()); err == nil {
		t.Errorf("FindRoot outside of a checkout = %q", got)
	}
}
