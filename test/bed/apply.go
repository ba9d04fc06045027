package bed

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// Apply makes the cluster have the objects of a YAML stream, as
// `kubectl apply --server-side` does.
func (k *Kube) Apply(ctx context.Context, stream []byte) error {
	for _, document := range bytes.Split(stream, []byte("\n---\n")) {
		var object unstructured.Unstructured
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			return fmt.Errorf("read object: %w", err)
		}
		if object.Object == nil {
			continue
		}
		err := k.rest.Patch(types.ApplyYAMLPatchType).AbsPath(pathOf(&object)).Param("fieldManager", "bed").Param("force", "true").
			Body(document).Do(ctx).Error()
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// Raw asks for the JSON of what lies at a path of the API server.
func (k *Kube) Raw(ctx context.Context, path string) ([]byte, error) {
	return k.rest.Get().AbsPath(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
}

func pathOf(o *unstructured.Unstructured) string {
	gvk := o.GroupVersionKind()
	plural, _ := meta.UnsafeGuessKindToResource(schema.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind})
	parts := []string{"/apis", gvk.Group, gvk.Version}
	if gvk.Group == "" {
		parts = []string{"/api", gvk.Version}
	}
	if o.GetNamespace() != "" {
		parts = append(parts, "namespaces", o.GetNamespace())
	}
	return strings.Join(append(parts, plural.Resource, o.GetName()), "/")
}
