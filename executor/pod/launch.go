package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Launch creates a job's pod with its secrets, or adopts the pod that an
// earlier call for the same job and attempt has created. A pod of an earlier
// attempt, or one that has ended, is replaced. There are never two: the name
// is the job's.
func (c *Client) Launch(ctx context.Context, m *Manifest) (pod *corev1.Pod, adopted bool, err error) {
	if err := firstError(c.createNamespace(ctx, m), c.addAccountSecrets(ctx, m)); err != nil {
		return nil, false, err
	}
	for {
		pod, err := c.create(ctx, m)
		if err == nil {
			return pod, false, c.own(ctx, m, pod)
		}
		if m.restrict(err) {
			c.log.Linef("namespace %s wants the restricted security level: containers run as a user other than root", m.Pod.Namespace)
			if err := c.deleteSecrets(ctx, m); err != nil {
				return nil, false, err
			}
			continue
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, false, err
		}
		there, err := c.Get(ctx, m.Pod.Name)
		if err == nil && adoptable(there, m.Pod) {
			return there, true, c.own(ctx, m, there)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, false, err
		}
		if err == nil {
			if err := c.refuseAlive(ctx, there); err != nil {
				return nil, false, err
			}
		}
		c.log.Linef("removing what an earlier attempt has left")
		if err := c.replace(ctx, m, there); err != nil {
			return nil, false, err
		}
	}
}

func adoptable(there, want *corev1.Pod) bool {
	return there.Labels[LabelAttempt] == want.Labels[LabelAttempt] && Doomed(there) == nil
}

// create makes the secrets, then the pod: in this order the kubelet never
// looks for a secret that isn't there. If anything exists already, the error
// says so.
func (c *Client) create(ctx context.Context, m *Manifest) (*corev1.Pod, error) {
	err := inParallel(m.Secrets, func(s *corev1.Secret) error {
		return c.retry(ctx, "create secret "+s.Name, func(ctx context.Context) error {
			return c.rest.Post().Namespace(c.namespace).Resource("secrets").Body(s).Do(ctx).Error()
		})
	})
	if err != nil {
		return nil, refusal(err)
	}
	pod := &corev1.Pod{}
	err = c.whileAccountIsMissing(ctx, m, func() error {
		return c.retry(ctx, "create pod "+m.Pod.Name, func(ctx context.Context) error {
			return c.rest.Post().Namespace(c.namespace).Resource("pods").Body(m.Pod).Do(ctx).Into(pod)
		})
	})
	return pod, refusal(err)
}

// replace takes away what stands in the manifest's place. A pod leaves the API
// at once, so that its successor need not wait for the node.
func (c *Client) replace(ctx context.Context, m *Manifest, there *corev1.Pod) error {
	if err := c.Delete(ctx, m.Pod.Name, 0); err != nil {
		return err
	}
	if err := c.deleteSecrets(ctx, m); err != nil {
		return err
	}
	return c.waitGone(ctx, there)
}

func (c *Client) deleteSecrets(ctx context.Context, m *Manifest) error {
	return inParallel(m.Secrets, func(s *corev1.Secret) error { return c.deleteSecret(ctx, s.Name) })
}

func (c *Client) deleteSecret(ctx context.Context, name string) error {
	return c.delete(ctx, "secrets", name, &metav1.DeleteOptions{})
}

// own makes the pod the owner of its secrets, so that they go with it, and
// gives it what else it shall own.
func (c *Client) own(ctx context.Context, m *Manifest, pod *corev1.Pod) error {
	if m.DisruptionBudget {
		if err := c.createBudget(ctx, pod); err != nil {
			return err
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"ownerReferences": []metav1.OwnerReference{{
		APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
	}}}})
	if err != nil {
		return fmt.Errorf("encode the owner of secrets: %w", err)
	}
	return inParallel(m.Secrets, func(s *corev1.Secret) error {
		return c.retry(ctx, "set owner of secret "+s.Name, func(ctx context.Context) error {
			return c.rest.Patch(types.MergePatchType).Namespace(c.namespace).Resource("secrets").Name(s.Name).Body(patch).Do(ctx).Error()
		})
	})
}

// waitGone returns when a pod that is being deleted has left the API.
func (c *Client) waitGone(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for {
		there, err := c.Get(ctx, pod.Name)
		if apierrors.IsNotFound(err) || err == nil && there.UID != pod.UID {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for pod %s to be deleted: still there after %s", pod.Name, c.timeout)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Remove deletes a job's pod and secrets. It finds nothing to do without
// complaint. The secrets have the pod for an owner, but a prepare that died
// halfway may have left them without.
func (c *Client) Remove(ctx context.Context, pod string, secrets []string) error {
	return inParallel(append([]string{""}, secrets...), func(secret string) error {
		if secret != "" {
			return c.deleteSecret(ctx, secret)
		}
		// One second is for podlane-helper, which ends at once when no script
		// runs.
		return c.Delete(ctx, pod, 1)
	})
}

func inParallel[T any](items []T, do func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = do(item) })
	}
	wg.Wait()
	return firstError(errs...)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
