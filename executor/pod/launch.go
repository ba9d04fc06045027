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
		if there.DeletionTimestamp == nil {
			c.log.Linef("removing what an earlier attempt has left")
		}
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

// replace takes away what stands in the manifest's place.
func (c *Client) replace(ctx context.Context, m *Manifest, there *corev1.Pod) error {
	if err := c.endPod(ctx, there); err != nil {
		return err
	}
	return c.deleteSecrets(ctx, m)
}

// nodePatience is how long a node may take to end a pod whose grace period is over.
const nodePatience = 20 * time.Second

// endPod returns when a pod has left the API, and that is when its containers
// have ended: its successor would run the job a second time beside it. A pod that
// the cluster ends already has its grace period. Only a node that does not answer
// is not waited for.
func (c *Client) endPod(ctx context.Context, there *corev1.Pod) error {
	grace := time.Second // for podlane-helper, which ends at once when no script runs
	switch {
	case there.Name == "":
		return nil // secrets alone
	case there.DeletionTimestamp == nil:
		if err := c.deleteThis(ctx, there, grace); err != nil {
			return err
		}
	default:
		if s := there.DeletionGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		c.log.Linef("waiting for the pod of an earlier attempt to end: %s; its script may go on for up to %s", whyLeaving(there), grace)
	}
	gone, err := c.waitGone(ctx, there, grace+nodePatience)
	if gone || err != nil {
		return err
	}
	c.log.Warnf("pod %s has not ended in time: node %s does not answer; it is deleted without that", there.Name, there.Spec.NodeName)
	if err := c.deleteThis(ctx, there, 0); err != nil {
		return err
	}
	gone, err = c.waitGone(ctx, there, c.timeout)
	if !gone && err == nil {
		err = fmt.Errorf("wait for pod %s to be deleted: still there after %s", there.Name, c.timeout)
	}
	return err
}

// deleteThis deletes a pod, but not one that has taken its place.
func (c *Client) deleteThis(ctx context.Context, pod *corev1.Pod, grace time.Duration) error {
	err := c.delete(ctx, "pods", pod.Name, &metav1.DeleteOptions{
		GracePeriodSeconds: new(int64(grace.Seconds())), Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
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

// waitGone returns when a pod that is being deleted has left the API, or when
// the time is up.
func (c *Client) waitGone(ctx context.Context, pod *corev1.Pod, limit time.Duration) (gone bool, err error) {
	watching, stop := context.WithTimeout(ctx, limit)
	states := make(chan *corev1.Pod)
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stop()
	watcher.Go(func() { c.watchPod(watching, pod, states) })
	for {
		select {
		case p := <-states:
			if p == nil {
				return true, nil
			}
		case <-watching.Done():
			if ctx.Err() != nil {
				return false, fmt.Errorf("wait for pod %s to be deleted: %w", pod.Name, context.Cause(ctx))
			}
			return false, nil
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
