package bed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"

	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
	"podlane/test/stack/vaultserver"
)

// Audience is what the bed's Vault expects of id_tokens, and what examples use.
const Audience = "https://vault.example.com"

// Vault is the Vault of a bed, as an administrator sees it. All beds of a stack
// share one, and each has mounts of its own, set up by scripts/vault-bootstrap.
type Vault struct {
	// Client has the root token.
	vaultserver.Client
	// Secrets are the files with the root token and the unseal key.
	vaultserver.Secrets
	// AuditLog has a JSON line for every request to this Vault and every answer,
	// those of other beds too: Mounts tell them apart.
	AuditLog string
	Mounts   Mounts
	// Instance stands for the bed's GitLab in object names.
	Instance string

	name  string
	bed   *Bed
	flags []string
}

// Mounts are where a bed's methods and engines are, without auth/.
type Mounts struct{ JWT, Kubernetes, AWS, KV string }

// openVault sets a Vault up for the bed's GitLab.
func openVault(ctx context.Context, b *Bed, o Options) (*Vault, error) {
	s := b.Stack
	v := &Vault{
		Secrets:  vaultserver.Secrets{RootTokenFile: s.VaultRootTokenFile, UnsealKeyFile: s.VaultUnsealKeyFile},
		AuditLog: s.VaultAuditLog, Instance: b.GitLab.InstanceID(), bed: b, name: b.name(),
	}
	address := s.VaultAddress
	if o.OwnVault != nil {
		v.Secrets, v.AuditLog, address = o.OwnVault.Secrets, o.OwnVault.AuditLog, o.OwnVault.Address
	}
	v.Mounts = Mounts{JWT: "jwt-" + v.name, Kubernetes: "kubernetes-" + v.name, AWS: "aws-" + v.name, KV: "kv-" + v.name}
	client, err := v.Secrets.Client(address)
	if err != nil {
		return nil, fmt.Errorf("find the test bed's Vault: %w; hint: make up", err)
	}
	v.Client = client
	v.flags = append([]string{
		"--gitlab", b.GitLab.URL(), "--audience", Audience,
		// Pods have other addresses.
		"--runner-cidr", s.BridgeIP + "/32", "--runner-cidr", "127.0.0.1/32",
	}, o.VaultFlags...)
	return v, v.Bootstrap(ctx,
		"--kube-namespace", stackenv.Namespace, "--kube-host", s.APIServerURL(), "--kube-ca-file", s.KubeCAFile, "--kube-token-file", s.VaultKubeTokenFile,
		"--bucket", stackenv.S3Bucket, "--region", stackenv.S3Region, "--aws-key-file", s.S3VaultKeyFile, "--sts-endpoint", s.STSAddress,
	)
}

// Bootstrap runs scripts/vault-bootstrap for the bed's GitLab and mounts, with
// further options: to add a grant, say.
func (v *Vault) Bootstrap(ctx context.Context, options ...string) error {
	return v.script(ctx, append(v.flags[:len(v.flags):len(v.flags)], options...))
}

// AddProject gives a project its roles for caches.
func (v *Vault) AddProject(ctx context.Context, p *gitlabsim.Project) error {
	return v.script(ctx, []string{"--bucket", stackenv.S3Bucket, "--instance", v.Instance, "--project", strconv.FormatInt(p.ID, 10)})
}

func (v *Vault) script(ctx context.Context, options []string) error {
	args := append([]string{
		filepath.Join(v.bed.Root(), "scripts", "vault-bootstrap"),
		"--address", v.Address, "--token-file", v.RootTokenFile, "--policy-prefix", "podlane-" + v.name,
		"--auth-mount", v.Mounts.JWT, "--kubernetes-mount", v.Mounts.Kubernetes, "--aws-mount", v.Mounts.AWS, "--kv-mount", v.Mounts.KV,
	}, options...)
	cmd := exec.CommandContext(ctx, "sh", args...)
	// Nothing of the caller's shell, such as VAULT_NAMESPACE, may decide.
	cmd.Env = []string{"PATH=" + lookup(v.bed.environ, "PATH")}
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set up Vault for the test bed: %w\n%s", err, bytes.TrimSpace(output))
	}
	return nil
}

// PersonsToken is one that a person would have who has some of the policies that
// scripts/vault-bootstrap makes, by what their names end with: "-cache-admin".
func (v *Vault) PersonsToken(ctx context.Context, policies ...string) (string, error) {
	names := []string{"default"}
	for _, policy := range policies {
		names = append(names, "podlane-"+v.name+policy)
	}
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	err := v.API(ctx, http.MethodPost, "auth/token/create", map[string]any{"policies": names, "ttl": "10m"}, &answer)
	return answer.Auth.ClientToken, err
}

// StoreSecret writes a secret of the KV engine, which a grant of kind kv can
// give: such a grant makes the mount.
func (v *Vault) StoreSecret(ctx context.Context, path string, fields map[string]string) error {
	return v.API(ctx, http.MethodPost, v.Mounts.KV+"/data/"+path, map[string]any{"data": fields}, nil)
}

// Unseal undoes Seal. Seal the bed's Vault only if it has one of its own.
func (v *Vault) Unseal(ctx context.Context) error {
	return v.Prepare(ctx, v.Address, v.AuditLog)
}

// settings are podlane's, for this Vault.
func (v *Vault) settings() Settings {
	s := v.bed.Stack
	return Settings{
		"kubernetes":        {"kubeconfig": `""`, "server": quote(s.APIServerURL()), "ca_file": quote(s.KubeCAFile)},
		"vault":             {"address": quote(v.Address), "auth_mount": quote(v.Mounts.JWT)},
		"vault.kubernetes":  {"mount": quote(v.Mounts.Kubernetes)},
		"vault.cache_read":  {"mount": quote(v.Mounts.AWS)},
		"vault.cache_write": {"mount": quote(v.Mounts.AWS)},
		"vault.cache_admin": {"mount": quote(v.Mounts.AWS)},
	}
}

// close takes the bed's mounts and policies away, and with them all its leases.
func (v *Vault) close(ctx context.Context) error {
	var policies struct{ Data struct{ Keys []string } }
	paths := []string{"sys/auth/" + v.Mounts.JWT, "sys/mounts/" + v.Mounts.Kubernetes, "sys/mounts/" + v.Mounts.AWS, "sys/mounts/" + v.Mounts.KV}
	err := v.API(ctx, "LIST", "sys/policies/acl", nil, &policies)
	for _, name := range policies.Data.Keys {
		if hasPrefix(name, "podlane-"+v.name) {
			paths = append(paths, "sys/policies/acl/"+name)
		}
	}
	for _, path := range paths {
		err = errors.Join(err, v.API(ctx, http.MethodDelete, path, nil, nil))
	}
	return err
}
