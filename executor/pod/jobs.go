package pod

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// LiveJob is a job that has a pod.
type LiveJob struct {
	Job     string `json:"job"`
	Name    string `json:"name"`
	Project string `json:"project"`
	URL     string `json:"url"`
	Pod     string `json:"pod"`
	// Namespace is the pod's.
	Namespace string `json:"namespace"`
	Node      string `json:"node"`
	// State is waiting, starting, running, ended or leaving.
	State   string    `json:"state"`
	Created time.Time `json:"created"`
}

// LiveJobs lists the jobs that have a pod, the oldest first.
func (c *Client) LiveJobs(ctx context.Context) ([]LiveJob, error) {
	pods, err := c.ManagedPods(ctx, "")
	if err != nil {
		return nil, err
	}
	jobs := make([]LiveJob, len(pods))
	for i, p := range pods {
		jobs[i] = LiveJob{
			Job: p.Labels[LabelJob], Name: p.Annotations[AnnotationJobName], Project: p.Annotations[AnnotationProject], URL: p.Annotations[AnnotationJobURL],
			Pod: p.Name, Namespace: p.Namespace, Node: p.Spec.NodeName, State: stateOf(&p), Created: p.CreationTimestamp.Time,
		}
	}
	slices.SortFunc(jobs, func(a, b LiveJob) int { return a.Created.Compare(b.Created) })
	return jobs, nil
}

// States of a job whose containers may answer.
const (
	Starting = "starting"
	Running  = "running"
)

func stateOf(p *corev1.Pod) string {
	_, over := endOf(p)
	switch {
	case p.DeletionTimestamp != nil:
		return "leaving"
	case over:
		return "ended"
	case p.Spec.NodeName == "":
		return "waiting"
	case p.Status.Phase == corev1.PodRunning:
		return Running
	default:
		return Starting
	}
}
