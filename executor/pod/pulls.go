package pod

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// pullReasons are the failures after which the next pull policy is tried.
var pullReasons = []string{"image not found", "image pull denied", "image pull failed"}

// PullOtherwise starts the pod anew with the next pull policy of the container
// whose image could not be had. It returns nil if err is no such failure, or if
// no policy is left.
func (c *Client) PullOtherwise(ctx context.Context, m *Manifest, there *corev1.Pod, err error) (*corev1.Pod, error) {
	var f *Failure
	if !errors.As(err, &f) || !slices.Contains(pullReasons, f.Reason) || !m.nextPull(f.Container) {
		return nil, nil
	}
	c.log.Warnf("%v; trying again with another pull policy", f)
	if err := c.replace(ctx, m, there); err != nil {
		return nil, err
	}
	pod, _, err := c.Launch(ctx, m)
	return pod, err
}

// nextPull sets the next policy of a container.
func (m *Manifest) nextPull(container string) bool {
	left := m.pulls[container]
	if len(left) == 0 {
		return false
	}
	m.pulls[container] = left[1:]
	for _, list := range [][]corev1.Container{m.Pod.Spec.InitContainers, m.Pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == container {
				list[i].ImagePullPolicy = left[0]
			}
		}
	}
	return true
}

// addAccountSecrets adds the pull secrets of the pod's service account. The API
// server does so itself, but only for pods without any of their own.
func (c *Client) addAccountSecrets(ctx context.Context, m *Manifest) error {
	if !m.accountSecrets {
		return nil
	}
	account := &corev1.ServiceAccount{}
	name := m.Pod.Spec.ServiceAccountName
	err := c.retry(ctx, "get service account "+name, func(ctx context.Context) error {
		return c.rest.Get().Namespace(c.namespace).Resource("serviceaccounts").Name(name).Do(ctx).Into(account)
	})
	if apierrors.IsNotFound(err) {
		return nil // the pod's creation says so, and has patience with it
	}
	if err != nil {
		return refusal(err)
	}
	m.accountSecrets = false
	for _, pod := range []*corev1.Pod{m.Pod, m.restricted} {
		if pod != nil {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, account.ImagePullSecrets...)
		}
	}
	return nil
}
