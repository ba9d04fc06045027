package kubeapi

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"

	"sigs.k8s.io/yaml"
)

// resources are the kinds that Apply knows, by apiVersion and kind.
var resources = map[string]struct {
	prefix     string
	plural     string
	namespaced bool
}{
	"v1/Namespace":                             {"/api/v1", "namespaces", false},
	"v1/ServiceAccount":                        {"/api/v1", "serviceaccounts", true},
	"rbac.authorization.k8s.io/v1/Role":        {"/apis/rbac.authorization.k8s.io/v1", "roles", true},
	"rbac.authorization.k8s.io/v1/RoleBinding": {"/apis/rbac.authorization.k8s.io/v1", "rolebindings", true},
}

// Apply makes the cluster have the objects of a YAML stream, as `kubectl apply
// --server-side` would. Objects that live in a namespace and name none go to the
// given one.
func (c *Client) Apply(ctx context.Context, stream []byte, namespace string) error {
	for _, document := range bytes.Split(stream, []byte("\n---\n")) {
		path, err := applyPath(document, namespace)
		if err != nil {
			return err
		}
		if path == "" {
			continue
		}
		if err := c.do(ctx, http.MethodPatch, path, "application/apply-patch+yaml", document, nil); err != nil {
			return fmt.Errorf("apply %s: %w", path, err)
		}
	}
	return nil
}

// applyPath is the request that applies document; empty for a document that
// has only comments.
func applyPath(document []byte, namespace string) (string, error) {
	var object struct {
		APIVersion string
		Kind       string
		Metadata   struct{ Name, Namespace string }
	}
	if err := yaml.Unmarshal(document, &object); err != nil {
		return "", fmt.Errorf("read object: %w", err)
	}
	if object.Kind == "" {
		return "", nil
	}
	r, ok := resources[object.APIVersion+"/"+object.Kind]
	if !ok {
		return "", fmt.Errorf("object %s: kind %s of %s cannot be applied here", object.Metadata.Name, object.Kind, object.APIVersion)
	}
	path := r.prefix
	if r.namespaced {
		path += "/namespaces/" + url.PathEscape(cmp.Or(object.Metadata.Namespace, namespace))
	}
	return path + "/" + r.plural + "/" + url.PathEscape(object.Metadata.Name) + "?fieldManager=podlane-stack&force=true", nil
}
