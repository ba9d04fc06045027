package bed

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DeleteDisruptionBudget deletes a PodDisruptionBudget.
func (k *Kube) DeleteDisruptionBudget(ctx context.Context, name string) error {
	return k.rest.Delete().AbsPath("/apis/policy/v1/namespaces", k.namespace, "poddisruptionbudgets", name).Do(ctx).Error()
}

// CreateNamespace makes a namespace; the function that is returned takes it away
// again, with all that is in it.
func (k *Kube) CreateNamespace(ctx context.Context, name string, labels map[string]string) (remove func(context.Context) error, err error) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	err = k.rest.Post().Resource("namespaces").Body(namespace).Do(ctx).Error()
	return func(ctx context.Context) error {
		return k.rest.Delete().Resource("namespaces").Name(name).Do(ctx).Error()
	}, err
}

// Namespaces lists podlane's own namespaces by name, those that are being
// deleted left out.
func (k *Kube) Namespaces(ctx context.Context) ([]string, error) {
	var list corev1.NamespaceList
	err := k.rest.Get().Resource("namespaces").
		VersionedParams(&metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=podlane"}, k.params).Do(ctx).Into(&list)
	var names []string
	for _, n := range list.Items {
		if n.DeletionTimestamp == nil {
			names = append(names, n.Name)
		}
	}
	return names, err
}
