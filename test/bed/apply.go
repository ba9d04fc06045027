package bed

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// Apply makes the cluster have the objects of a YAML stream, as
// `kubectl apply --server-side` does.
func (k *Kube) Apply(ctx context.Context, stream []byte) error {
	return k.each(stream, func(o *unstructured.Unstructured, document []byte) error {
		return k.apply(ctx, o, document, nil)
	})
}

// DryRun has the API server judge the objects of a YAML stream, and takes no
// field that it does not know. Those without a namespace go to the jobs' one.
func (k *Kube) DryRun(ctx context.Context, stream []byte) error {
	return k.each(stream, func(o *unstructured.Unstructured, document []byte) error {
		if o.GetNamespace() == "" && !slices.Contains(clusterWide, o.GetKind()) {
			o.SetNamespace(k.namespace)
		}
		return k.apply(ctx, o, document, map[string]string{"dryRun": "All", "fieldValidation": "Strict"})
	})
}

// clusterWide are kinds that live in no namespace.
var clusterWide = []string{"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass"}

// Remove deletes the objects of a YAML stream at once. Those that are not there
// are fine.
func (k *Kube) Remove(ctx context.Context, stream []byte) error {
	return k.each(stream, func(o *unstructured.Unstructured, _ []byte) error {
		grace := int64(0)
		err := k.rest.Delete().AbsPath(pathOf(o)).Body(&metav1.DeleteOptions{GracePeriodSeconds: &grace}).Do(ctx).Error()
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("remove %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		return nil
	})
}

func (k *Kube) apply(ctx context.Context, o *unstructured.Unstructured, document []byte, params map[string]string) error {
	request := k.rest.Patch(types.ApplyYAMLPatchType).AbsPath(pathOf(o)).Param("fieldManager", "bed").Param("force", "true")
	for name, value := range params {
		request.Param(name, value)
	}
	if err := request.Body(document).Do(ctx).Error(); err != nil {
		return fmt.Errorf("apply %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// each calls do for each object of a YAML stream.
func (k *Kube) each(stream []byte, do func(o *unstructured.Unstructured, document []byte) error) error {
	for _, document := range bytes.Split(stream, []byte("\n---\n")) {
		var object unstructured.Unstructured
		if err := yaml.Unmarshal(document, &object.Object); err != nil {
			return fmt.Errorf("read object: %w", err)
		}
		if object.Object == nil {
			continue
		}
		if err := do(&object, document); err != nil {
			return err
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
