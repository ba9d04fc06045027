package stack

import (
	"bytes"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"text/template"

	"podlane/test/stack/internal/pki"
	"podlane/test/stack/stackenv"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(templateFiles, "templates/*"))

// configuration is what the templates see.
type configuration struct {
	stackenv.Stack
	Cgroup       string
	SandboxImage string
	Snapshotter  string
}

// cgroup is the control group of all of a stack's pods.
func cgroup(s stackenv.Stack) string { return s.Bridge }

// paths of what is written here and read by the daemons.
func pkiFile(s stackenv.Stack, name string) string { return filepath.Join(s.Dir, "pki", name) }

func configFile(s stackenv.Stack, name string) string { return filepath.Join(s.Dir, "config", name) }

func kubeconfig(s stackenv.Stack, user string) string {
	return filepath.Join(s.Dir, "config", user+".kubeconfig")
}

// certificates are all leaves of the cluster's authority. Each name is that of
// the files, and of the kubeconfig where there is one.
func certificates(s stackenv.Stack) []pki.Certificate {
	return []pki.Certificate{
		{
			Name: "apiserver", User: "kube-apiserver",
			Hosts: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
			IPs:   []string{s.BridgeIP, "127.0.0.1", "10.43.0.1"},
		},
		{Name: "kubelet", User: "system:node:" + stackenv.NodeName, Group: "system:nodes", Hosts: []string{stackenv.NodeName}, IPs: []string{s.BridgeIP}},
		{Name: "admin", User: "admin", Group: "system:masters"},
		{Name: "kubelet-client", User: "kube-apiserver-kubelet-client", Group: "system:masters"},
		{Name: "controller-manager", User: "system:kube-controller-manager"},
		{Name: "scheduler", User: "system:kube-scheduler"},
	}
}

// writeConfig writes all that the daemons read. Files whose content is right
// are left alone.
func writeConfig(s stackenv.Stack) error {
	if err := pki.Ensure(filepath.Join(s.Dir, "pki"), certificates(s)); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	snapshotter, err := snapshotter(s.Dir)
	if err != nil {
		return err
	}
	data := configuration{Stack: s, Cgroup: cgroup(s), SandboxImage: stackenv.ImagePause, Snapshotter: snapshotter}
	for name, path := range map[string]string{
		"containerd.toml":     configFile(s, "containerd.toml"),
		"kubelet.yaml":        configFile(s, "kubelet.yaml"),
		"audit-policy.yaml":   configFile(s, "audit-policy.yaml"),
		"cni.conflist":        filepath.Join(s.Dir, "cni", "10-bridge.conflist"),
		"registry-hosts.toml": filepath.Join(s.Dir, "registries", s.RegistryAddress, "hosts.toml"),
	} {
		if err := render(path, 0o644, name, data); err != nil {
			return err
		}
	}
	for _, user := range []string{"controller-manager", "scheduler", "kubelet"} {
		if err := writeKubeconfig(s, kubeconfig(s, user), user, ""); err != nil {
			return err
		}
	}
	return writeKubeconfig(s, s.AdminKubeconfig, "admin", "")
}

// writeKubeconfig gives access by token or, if that is empty, by the
// certificate of the given name.
func writeKubeconfig(s stackenv.Stack, path, certificate, token string) error {
	data := struct {
		stackenv.Stack
		Namespace, CA, Certificate, Key, Token string
	}{Stack: s, Namespace: stackenv.Namespace, Token: token}
	files := map[string]*string{"ca.crt": &data.CA}
	if token == "" {
		files[certificate+".crt"] = &data.Certificate
		files[certificate+".key"] = &data.Key
	}
	for name, field := range files {
		content, err := os.ReadFile(pkiFile(s, name))
		if err != nil {
			return err
		}
		*field = base64.StdEncoding.EncodeToString(content)
	}
	return render(path, 0o600, "kubeconfig.yaml", data)
}

// render writes a template's result unless the file holds just that.
func render(path string, mode fs.FileMode, name string, data any) error {
	var buf bytes.Buffer
	if err := templates.ExecuteTemplate(&buf, name, data); err != nil {
		return err
	}
	return writeIfChanged(path, mode, buf.Bytes())
}

func writeIfChanged(path string, mode fs.FileMode, content []byte) error {
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, content) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// snapshotter is overlayfs, unless dir itself lies on an overlay, as in a
// container: the kernel doesn't stack those.
func snapshotter(dir string) (string, error) {
	const overlay = 0x794c7630 // OVERLAYFS_SUPER_MAGIC, linux/magic.h
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("find out the file system of %s: %w", dir, err)
	}
	if st.Type == overlay {
		return "native", nil
	}
	return "overlayfs", nil
}
