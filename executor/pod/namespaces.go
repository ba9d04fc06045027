package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// In returns the client for another namespace.
func (c *Client) In(namespace string) *Client {
	other := *c
	other.namespace = namespace
	return &other
}

// createNamespace makes the job's own namespace if it has one. One that the
// job's last attempt is still deleting is waited for.
func (c *Client) createNamespace(ctx context.Context, m *Manifest) error {
	for m.Namespace != nil {
		err := c.retry(ctx, "create namespace "+m.Namespace.Name, func(ctx context.Context) error {
			return c.rest.Post().Resource("namespaces").Body(m.Namespace).Do(ctx).Error()
		})
		if !apierrors.IsAlreadyExists(err) {
			return refusal(err)
		}
		there := &corev1.Namespace{}
		err = c.retry(ctx, "get namespace "+m.Namespace.Name, func(ctx context.Context) error {
			return c.rest.Get().Resource("namespaces").Name(m.Namespace.Name).Do(ctx).Into(there)
		})
		switch {
		case err == nil && there.Labels[LabelManagedBy] != ManagedBy:
			return &Failure{Reason: "forbidden", Detail: fmt.Sprintf("namespace %s is there and not podlane's: kubernetes.namespace_per_job needs a name that nobody else uses", there.Name)}
		case err == nil && there.DeletionTimestamp == nil:
			return nil
		case err != nil && !apierrors.IsNotFound(err):
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for namespace %s of an earlier attempt to be deleted: %w", m.Namespace.Name, context.Cause(ctx))
		case <-time.After(time.Second):
		}
	}
	return nil
}

// RemoveNamespace deletes a job's own namespace and all that is in it. It
// deletes none that podlane has not made.
func (c *Client) RemoveNamespace(ctx context.Context) error {
	there := &corev1.Namespace{}
	err := c.retry(ctx, "get namespace "+c.namespace, func(ctx context.Context) error {
		return c.rest.Get().Resource("namespaces").Name(c.namespace).Do(ctx).Into(there)
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if there.Labels[LabelManagedBy] != ManagedBy {
		return errors.New("namespace " + c.namespace + " is not deleted: podlane has not made it")
	}
	return c.retry(ctx, "delete namespace "+c.namespace, func(ctx context.Context) error {
		options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &there.UID}}
		err := c.rest.Delete().Resource("namespaces").Name(c.namespace).Body(options).Do(ctx).Error()
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // gone, or on its way
		}
		return err
	})
}

// createBudget keeps evictions from the pod. The budget goes with the pod.
func (c *Client) createBudget(ctx context.Context, pod *corev1.Pod) error {
	// The client knows the core group only: this is the one object of another.
	body, err := json.Marshal(disruptionBudget(pod))
	if err != nil {
		return fmt.Errorf("encode a disruption budget: %w", err)
	}
	err = c.retry(ctx, "create disruption budget "+pod.Name, func(ctx context.Context) error {
		return c.rest.Post().AbsPath("/apis/policy/v1/namespaces", c.namespace, "poddisruptionbudgets").
			SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
	})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return refusal(err)
}

func disruptionBudget(pod *corev1.Pod) map[string]any {
	match := map[string]string{}
	for _, label := range []string{LabelInstance, LabelProject, LabelJob, LabelAttempt} {
		match[label] = pod.Labels[label]
	}
	return map[string]any{
		"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
		"metadata": metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		"spec": map[string]any{"minAvailable": 1, "selector": metav1.LabelSelector{MatchLabels: match}},
	}
}
