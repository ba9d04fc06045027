package stack

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"sigs.k8s.io/yaml"

	"podlane/internal/image"
	"podlane/test/stack/stackenv"
)

func TestConfigurationIsWellFormed(t *testing.T) {
	s := testStack(t)
	if err := writeConfig(s); err != nil {
		t.Fatal(err)
	}
	var anything any
	if _, err := toml.DecodeFile(configFile(s, "containerd.toml"), &anything); err != nil {
		t.Errorf("containerd.toml: %v", err)
	}
	if _, err := toml.DecodeFile(filepath.Join(s.Dir, "registries", s.RegistryAddress, "hosts.toml"), &anything); err != nil {
		t.Errorf("hosts.toml: %v", err)
	}
	for _, path := range []string{
		configFile(s, "kubelet.yaml"), configFile(s, "audit-policy.yaml"), s.AdminKubeconfig,
		kubeconfig(s, "kubelet"), kubeconfig(s, "scheduler"), kubeconfig(s, "controller-manager"),
	} {
		if err := yaml.UnmarshalStrict(read(t, path), &anything); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := json.Unmarshal(read(t, filepath.Join(s.Dir, "cni", "10-bridge.conflist")), &anything); err != nil {
		t.Errorf("10-bridge.conflist: %v", err)
	}
}

func TestConfigurationThatIsRightIsLeftAlone(t *testing.T) {
	s := testStack(t)
	if err := writeConfig(s); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(configFile(s, "kubelet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeConfig(s); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(configFile(s, "kubelet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("kubelet.yaml was written again")
	}
}

func TestKubeconfigByTokenHasNoCertificate(t *testing.T) {
	s := testStack(t)
	if err := writeConfig(s); err != nil {
		t.Fatal(err)
	}
	if err := writeKubeconfig(s, s.ProductKubeconfig, "", "secret-token"); err != nil {
		t.Fatal(err)
	}
	text := string(read(t, s.ProductKubeconfig))
	if !strings.Contains(text, "token: secret-token") || strings.Contains(text, "client-key-data") {
		t.Errorf("got %s", text)
	}
	info, err := os.Stat(s.ProductKubeconfig)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}

func TestPartsShareNoAddress(t *testing.T) {
	taken := map[string]string{}
	for _, p := range parts(testStack(t), programs{}) {
		for _, address := range p.listens {
			if other, ok := taken[address]; ok {
				t.Errorf("%s and %s both listen on %s", other, p.Name, address)
			}
			taken[address] = p.Name
		}
	}
}

func TestCheckOwner(t *testing.T) {
	s := testStack(t)
	living := t.TempDir()
	if err := os.WriteFile(filepath.Join(living, "go.mod"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(living, ".local", "stack-3")
	gone := "/gone/.local/stack-3"
	tests := []struct {
		name, owner string
		runs, ok    bool
	}{
		{"ours", s.Dir, true, true},
		{"ours, down", s.Dir, false, true},
		{"another checkout's", other, true, false},
		{"another checkout's, down", other, false, true},
		{"of a checkout that is gone", gone, true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := checkOwner(s, test.owner, test.runs)
			if (err == nil) != test.ok {
				t.Errorf("got %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), test.owner) {
				t.Errorf("%v doesn't name the owner", err)
			}
		})
	}
}

// Every image that tests can name must be made.
func TestImages(t *testing.T) {
	bin := t.TempDir()
	for _, name := range []string{"pause", "noshell", "service", "podlane-helper"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("there is no busybox on this machine; the stack installs it")
	}
	l, err := image.NewLayer(nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := images(t.Context(), layers{tools: l, node: l, golang: l, goCache: l, goModules: l, helper: l}, bin)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, img := range list {
		got = append(got, img.Name)
	}
	want := []string{
		stackenv.ImagePause, stackenv.ImageHelper, stackenv.ImageHelperGitLab, stackenv.ImageHelperBare,
		stackenv.ImageJob, stackenv.ImageJobBusybox, stackenv.ImageJobNonroot, stackenv.ImageJobKaniko,
		stackenv.ImageJobNoShell, stackenv.ImageService, stackenv.ImageGo,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, expected %v", got, want)
	}
}

func testStack(t *testing.T) stackenv.Stack {
	t.Helper()
	s, err := stackenv.New(t.TempDir(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
