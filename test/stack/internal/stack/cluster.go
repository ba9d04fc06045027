package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"podlane/test/stack/internal/kubeapi"
	"podlane/test/stack/stackenv"
)

// cluster is what the API server can be asked and told.
type cluster struct {
	manager *Manager
	api     *kubeapi.Client
}

func (m *Manager) connect() (*cluster, error) {
	s := m.Stack
	api, err := kubeapi.New(s.APIServerURL(), pkiFile(s, "ca.crt"), pkiFile(s, "admin.crt"), pkiFile(s, "admin.key"))
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return &cluster{manager: m, api: api}, nil
}

// answers waits for the API server, which the parts on bear.
func (c *cluster) answers(ctx context.Context, on ...part) error {
	return await(ctx, "the API server", startLimit, on, func(ctx context.Context) error {
		return c.api.Get(ctx, "/readyz", nil)
	})
}

// complete makes the cluster one in which jobs can run.
func (c *cluster) complete(ctx context.Context, on []part) error {
	if err := c.applyRBAC(ctx); err != nil {
		return err
	}
	// The node's status outlives a kubelet: ask that itself first.
	kubelet := fmt.Sprintf("http://%s:%d/healthz", c.manager.Stack.BridgeIP, c.manager.Stack.Ports.KubeletHealth)
	if err := await(ctx, "the kubelet", startLimit, on, func(ctx context.Context) error { return getOK(ctx, kubelet) }); err != nil {
		return err
	}
	if err := await(ctx, "node "+stackenv.NodeName, startLimit, on, c.nodeReady); err != nil {
		return err
	}
	if err := await(ctx, "namespace "+stackenv.Namespace, startLimit, on, c.namespaceReady); err != nil {
		return err
	}
	return c.writeTokens(ctx)
}

func (c *cluster) applyRBAC(ctx context.Context) error {
	namespace := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n", stackenv.Namespace)
	if err := c.api.Apply(ctx, []byte(namespace), ""); err != nil {
		return err
	}
	for _, name := range []string{"rbac.yaml", "vault-rbac.yaml"} {
		rules, err := os.ReadFile(filepath.Join(c.manager.Stack.Root, "deploy", name))
		if err != nil {
			return err
		}
		if err := c.api.Apply(ctx, rules, stackenv.Namespace); err != nil {
			return err
		}
	}
	return nil
}

// nodeReady asks whether pods can be scheduled: a new node carries taints for
// a moment after it has become ready.
func (c *cluster) nodeReady(ctx context.Context) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key string }
		}
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.api.Get(ctx, "/api/v1/nodes/"+stackenv.NodeName, &node); err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status != "True" {
			return fmt.Errorf("the node is not ready: %s", condition.Message)
		}
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("the node has taint %s", node.Spec.Taints[0].Key)
	}
	if len(node.Status.Conditions) == 0 {
		return errors.New("the node has no status yet")
	}
	return nil
}

// namespaceReady asks for what the controller manager puts into a namespace
// and without which pods are refused or don't start.
func (c *cluster) namespaceReady(ctx context.Context) error {
	namespace := "/api/v1/namespaces/" + stackenv.Namespace
	return errors.Join(
		c.api.Get(ctx, namespace+"/serviceaccounts/default", nil),
		c.api.Get(ctx, namespace+"/configmaps/kube-root-ca.crt", nil),
	)
}

// writeTokens writes what the product and Vault use to reach the cluster.
func (c *cluster) writeTokens(ctx context.Context) error {
	s := c.manager.Stack
	token, err := c.token(ctx, stackenv.Namespace, stackenv.ServiceAccount)
	if err != nil {
		return err
	}
	if err := writeKubeconfig(s, s.ProductKubeconfig, "", token); err != nil {
		return err
	}
	// As in deploy/vault-rbac.yaml.
	token, err = c.token(ctx, "podlane-vault", "vault")
	if err != nil {
		return err
	}
	return writeIfChanged(s.VaultKubeTokenFile, 0o600, []byte(token))
}

// tokenSeconds is how long these tokens are good for: a working day.
const tokenSeconds = 24 * 60 * 60

func (c *cluster) token(ctx context.Context, namespace, account string) (string, error) {
	path := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", namespace, account)
	ask := map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"spec": map[string]any{"expirationSeconds": tokenSeconds},
	}
	var answer struct{ Status struct{ Token string } }
	if err := c.api.Post(ctx, path, ask, &answer); err != nil {
		return "", fmt.Errorf("ask for the token of %s: %w", account, err)
	}
	return answer.Status.Token, nil
}

// healthy reports what status shows of the cluster as a whole.
func (c *cluster) healthy(ctx context.Context) error {
	if err := c.api.Get(ctx, "/readyz", nil); err != nil {
		return err
	}
	return c.nodeReady(ctx)
}
