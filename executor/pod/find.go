package pod

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var jobNumber = regexp.MustCompile(`^[0-9]{1,19}$`)

// Find returns the pod of a job that a person names: by its number, by the
// address of its page, or by its pod.
func (c *Client) Find(ctx context.Context, job string) (*corev1.Pod, error) {
	selector := ""
	if jobNumber.MatchString(job) {
		selector = LabelJob + "=" + job
	}
	pods, err := c.ManagedPods(ctx, selector)
	if err != nil {
		return nil, err
	}
	var found []corev1.Pod
	for _, p := range pods {
		if isJob(&p.ObjectMeta, job) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return &found[0], nil
	case 0:
		return nil, fmt.Errorf("no pod of job %s in %s: found %d of other jobs; hint: podlane top lists them", job, c.describe(), len(pods))
	}
	var names []string
	for _, p := range found {
		names = append(names, p.Name)
	}
	return nil, fmt.Errorf("job %s has %d pods, of several projects or GitLab instances: %s; hint: name one of them", job, len(found), strings.Join(names, ", "))
}

// isJob tells whether an object belongs to the job that a person names.
func isJob(meta *metav1.ObjectMeta, job string) bool {
	return meta.Labels[LabelJob] == job || meta.Name == job || job != "" && meta.Annotations[AnnotationJobURL] == job
}
