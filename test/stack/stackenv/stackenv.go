// Package stackenv says where a test stack has its things: a stack's number
// alone decides its folders, ports, bridge and subnet. It starts nothing and
// reads nothing but what its functions are given, so tests and the demo can
// import it freely.
package stackenv

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// MaxNumber is the highest number a stack may have.
	MaxNumber = 49
	// Namespace is where jobs run.
	Namespace = "podlane-ci"
	// ServiceAccount is the account in Namespace that the product uses.
	ServiceAccount = "podlane"
	// NodeName is the name of the only node.
	NodeName = "node1"
	// RegistryUser is who may pull names under private/ from the registry.
	RegistryUser = "ci"

	// S3Bucket is empty of everything but caches.
	S3Bucket = "podlane-cache"
	// S3Region is what S3 takes for its own.
	S3Region = "us-east-1"
	// S3RootUser is S3's administrator.
	S3RootUser = "podlane-root"
	// S3VaultUser is whom Vault's AWS engine works as: it makes credentials
	// that can do less.
	S3VaultUser = "podlane-vault"

	firstPort = 21000
	portRange = 40
	// firstSpare is the first of a stack's ports that no part of it has.
	firstSpare = 15
)

// Stack is the plan of one stack. Its paths are absolute. They exist once
// `go run ./test/stack up` has succeeded.
type Stack struct {
	Number int
	// Root is the checkout that owns the stack.
	Root string
	// Dir holds the stack's state, RunDir its sockets and process records.
	Dir    string
	RunDir string
	LogDir string

	// AdminKubeconfig may do everything: for tests, never for the product.
	AdminKubeconfig string
	// ProductKubeconfig is the product's: ServiceAccount's token, good for a
	// day, with the rights of deploy/rbac.yaml in Namespace.
	ProductKubeconfig string
	// AuditLog has a JSON line for every request that the API server served.
	AuditLog string

	ContainerdSocket string
	Bridge           string
	// BridgeIP is the host's address as seen from pods, and the node's.
	BridgeIP  string
	PodSubnet string
	Ports     Ports

	// RegistryAddress is host:port of a plain-HTTP registry that has the
	// images PublicImage and PrivateImage.
	RegistryAddress string
	// RegistryPasswordFile has RegistryUser's password and no newline.
	RegistryPasswordFile string

	// VaultAddress is Vault's URL. The files hold what they are named after and
	// no newline: with the root token everything is allowed.
	VaultAddress       string
	VaultRootTokenFile string
	VaultUnsealKeyFile string
	// VaultAuditLog has a JSON line for every request to Vault and every answer.
	VaultAuditLog string
	// VaultProgram is the server, for tests that want a Vault of their own.
	VaultProgram string
	// VaultKubeTokenFile has a token for the cluster with the rights of
	// deploy/vault-rbac.yaml, KubeCAFile the authority of the API server's
	// certificate: both for Vault's Kubernetes engine.
	VaultKubeTokenFile string
	KubeCAFile         string

	// S3Address is the URL of an S3 server that pods reach, STSAddress that of a
	// server which knows AWS's STS as well.
	S3Address  string
	STSAddress string
	// S3RootPasswordFile and S3VaultPasswordFile have the secret keys of
	// S3RootUser and S3VaultUser, whose names are their access keys.
	S3RootPasswordFile  string
	S3VaultPasswordFile string
	// S3RootKeyFile and S3VaultKeyFile have both, a line each, as our scripts
	// read them.
	S3RootKeyFile  string
	S3VaultKeyFile string
}

// Ports are the stack's TCP ports. All servers listen on BridgeIP, but etcd on
// 127.0.0.1.
type Ports struct {
	EtcdClient, EtcdPeer, APIServer, ControllerManager, Scheduler, Kubelet, KubeletHealth, Registry, Vault, S3, STS int
}

// New plans stack number of the checkout at root.
func New(root string, number int) (Stack, error) {
	if number < 0 || number > MaxNumber {
		return Stack{}, fmt.Errorf("stack number is %d, expected 0 to %d", number, MaxNumber)
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return Stack{}, fmt.Errorf("find checkout: %w", err)
	}
	dir := filepath.Join(root, ".local", fmt.Sprintf("stack-%d", number))
	run := fmt.Sprintf("/run/podlane-%d", number)
	port := firstPort + number*portRange
	s := Stack{
		Number:               number,
		Root:                 root,
		Dir:                  dir,
		RunDir:               run,
		LogDir:               filepath.Join(dir, "log"),
		AdminKubeconfig:      filepath.Join(dir, "admin.kubeconfig"),
		ProductKubeconfig:    filepath.Join(dir, "podlane.kubeconfig"),
		AuditLog:             filepath.Join(dir, "log", "audit.log"),
		ContainerdSocket:     filepath.Join(run, "containerd", "containerd.sock"),
		Bridge:               fmt.Sprintf("podlane%d", number),
		BridgeIP:             fmt.Sprintf("10.%d.0.1", 100+number),
		PodSubnet:            fmt.Sprintf("10.%d.0.0/24", 100+number),
		RegistryPasswordFile: filepath.Join(dir, "registry.password"),
		VaultRootTokenFile:   filepath.Join(dir, "vault", "root.token"),
		VaultUnsealKeyFile:   filepath.Join(dir, "vault", "unseal.key"),
		VaultAuditLog:        filepath.Join(dir, "log", "vault-audit.log"),
		VaultProgram:         filepath.Join(dir, "bin", "vault"),
		VaultKubeTokenFile:   filepath.Join(dir, "vault-kube.token"),
		KubeCAFile:           filepath.Join(dir, "pki", "ca.crt"),
		S3RootPasswordFile:   filepath.Join(dir, "s3-root.password"),
		S3VaultPasswordFile:  filepath.Join(dir, "s3-vault.password"),
		S3RootKeyFile:        filepath.Join(dir, "s3-root.keys"),
		S3VaultKeyFile:       filepath.Join(dir, "s3-vault.keys"),
		Ports: Ports{
			EtcdClient:        port,
			EtcdPeer:          port + 1,
			APIServer:         port + 2,
			ControllerManager: port + 3,
			Scheduler:         port + 4,
			Kubelet:           port + 5,
			KubeletHealth:     port + 6,
			Registry:          port + 7,
			Vault:             port + 8,
			S3:                port + 9,
			STS:               port + 10,
		},
	}
	s.RegistryAddress = fmt.Sprintf("%s:%d", s.BridgeIP, s.Ports.Registry)
	s.VaultAddress = s.httpURL(s.Ports.Vault)
	s.S3Address = s.httpURL(s.Ports.S3)
	s.STSAddress = s.httpURL(s.Ports.STS)
	return s, nil
}

// ParseNumber reads the value of PODLANE_STACK; empty means 0.
func ParseNumber(value string) (int, error) {
	if value == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > MaxNumber {
		return 0, fmt.Errorf("PODLANE_STACK is %q, expected a whole number from 0 to %d", value, MaxNumber)
	}
	return n, nil
}

// FindRoot returns the checkout that dir lies in: the nearest folder upwards
// whose go.mod is podlane's.
func FindRoot(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find checkout: %w", err)
	}
	for at := abs; ; at = filepath.Dir(at) {
		mod, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module podlane\n") {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s does not lie in a checkout of podlane", abs)
		}
	}
}

// APIServerURL is where the API server listens.
func (s Stack) APIServerURL() string {
	return fmt.Sprintf("https://%s:%d", s.BridgeIP, s.Ports.APIServer)
}

func (s Stack) httpURL(port int) string { return fmt.Sprintf("http://%s:%d", s.BridgeIP, port) }

// PublicImage can be pulled from the stack's registry by everyone.
func (s Stack) PublicImage() string { return s.RegistryAddress + "/public/job-busybox:1" }

// PrivateImage can be pulled from the stack's registry by RegistryUser only.
func (s Stack) PrivateImage() string { return s.RegistryAddress + "/private/job-busybox:1" }

// Variable is a name and value for a shell.
type Variable struct{ Name, Value string }

// Variables are what a shell needs to work with the stack: KUBECONFIG is the
// admin's, PODLANE_KUBECONFIG the product's.
func (s Stack) Variables() []Variable {
	return []Variable{
		{"PODLANE_STACK", strconv.Itoa(s.Number)},
		{"KUBECONFIG", s.AdminKubeconfig},
		{"PODLANE_KUBECONFIG", s.ProductKubeconfig},
		{"PODLANE_NAMESPACE", Namespace},
		{"PODLANE_STACK_DIR", s.Dir},
		{"PODLANE_BRIDGE_IP", s.BridgeIP},
		{"PODLANE_REGISTRY", s.RegistryAddress},
		{"PODLANE_REGISTRY_PASSWORD_FILE", s.RegistryPasswordFile},
		{"VAULT_ADDR", s.VaultAddress},
		{"PODLANE_VAULT_TOKEN_FILE", s.VaultRootTokenFile},
		{"PODLANE_S3", s.S3Address},
		{"PODLANE_S3_BUCKET", S3Bucket},
		{"PODLANE_S3_ACCESS_KEY", S3RootUser},
		{"PODLANE_S3_SECRET_KEY_FILE", s.S3RootPasswordFile},
		{"CONTAINERD_ADDRESS", s.ContainerdSocket},
		{"CONTAINERD_NAMESPACE", "k8s.io"},
	}
}
