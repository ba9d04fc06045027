package bed

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EndPod deletes a pod as kubectl does: it goes on for a grace period, in
// seconds.
func (k *Kube) EndPod(ctx context.Context, name string, grace int64) error {
	return k.rest.Delete().Namespace(k.namespace).Resource("pods").Name(name).Body(&metav1.DeleteOptions{GracePeriodSeconds: &grace}).Do(ctx).Error()
}

// Node returns a node.
func (k *Kube) Node(ctx context.Context, name string) (*corev1.Node, error) {
	var node corev1.Node
	err := k.rest.Get().Resource("nodes").Name(name).Do(ctx).Into(&node)
	return &node, err
}

// DeleteNode takes a node out of the cluster, as an autoscaler does. Its kubelet
// comes back when it is started anew.
func (k *Kube) DeleteNode(ctx context.Context, name string) error {
	return k.rest.Delete().Resource("nodes").Name(name).Do(ctx).Error()
}
