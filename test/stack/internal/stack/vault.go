package stack

import (
	"context"
	"path/filepath"

	"podlane/test/stack/stackenv"
	"podlane/test/stack/vaultserver"
)

// vaultDir goes with the cluster: its data, and the keys to it.
func vaultDir(s stackenv.Stack) string { return filepath.Join(s.Dir, "vault") }

// prepareVault makes Vault one that works. Mounts and roles are its users' to
// make: with scripts/vault-bootstrap, as everywhere.
func (m *Manager) prepareVault(ctx context.Context, vault part) error {
	s := m.Stack
	secrets := vaultserver.Secrets{UnsealKeyFile: s.VaultUnsealKeyFile, RootTokenFile: s.VaultRootTokenFile}
	return await(ctx, "Vault", startLimit, []part{vault}, func(ctx context.Context) error {
		return secrets.Prepare(ctx, s.VaultAddress, s.VaultAuditLog)
	})
}
