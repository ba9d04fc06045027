package bed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// Review gives the jobs of examples/monorepo what they deploy review apps with:
// rights on the cluster, the grant review-cluster, and a registry. A bed without
// a Vault has no grants.
func Review(o *Options) {
	o.Settings = o.Settings.clone()
	o.Settings["[grants]#review-cluster"] = map[string]string{
		"name": `"review-cluster"`, "kind": `"kubeconfig"`, "environments": `["review/*"]`, "pipeline_sources": `["merge_request_event"]`,
		"auth_role": `"podlane-grant-review-cluster"`, "mount": `"kubernetes-@BED@"`, "role": `"podlane-grant-review-cluster"`,
		"namespace": `"review"`, "work_namespace": `"{environment}"`,
	}
	o.VaultFlags = append(o.VaultFlags, "--grant", "name=review-cluster,kind=kubeconfig,account=deployer,namespaces=review,claim.pipeline_source=merge_request_event")
}

// ReviewVariables are those of a project whose pipeline deploys review apps, on
// a bed that was started with Review.
func (b *Bed) ReviewVariables(ctx context.Context) ([]gitlabsim.Variable, error) {
	rights, err := os.ReadFile(filepath.Join(b.Root(), "examples", "monorepo", "deploy", "review-rbac.yaml"))
	if err != nil {
		return nil, err
	}
	if err := b.Kube.Apply(ctx, rights); err != nil {
		return nil, fmt.Errorf("give review apps their rights: %w", err)
	}
	password, err := os.ReadFile(b.Stack.RegistryPasswordFile)
	if err != nil {
		return nil, err
	}
	return []gitlabsim.Variable{
		{Key: "CI_REGISTRY_IMAGE", Value: b.Stack.RegistryAddress + "/public/monorepo"},
		{Key: "CI_REGISTRY_USER", Value: stackenv.RegistryUser},
		{Key: "CI_REGISTRY_PASSWORD", Value: string(password), Masked: true},
		{Key: "REGISTRY_SCHEME", Value: "http"},
	}, nil
}
