package pod

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
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
