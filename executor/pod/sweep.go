package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Kinds of what podlane creates.
const (
	KindPod       = "pod"
	KindSecret    = "secret"
	KindNamespace = "namespace"
)

// Leftover is something on the cluster whose job is over.
type Leftover struct {
	Kind      string        `json:"kind"`
	Namespace string        `json:"namespace,omitempty"`
	Name      string        `json:"name"`
	Job       string        `json:"job,omitempty"`
	Project   string        `json:"project,omitempty"`
	Age       time.Duration `json:"-"`
	// Why says in a line how we know.
	Why string `json:"why"`

	uid     types.UID
	version string
}

// Sweep is a look for leftovers.
type Sweep struct {
	// Grace is how long something must have been over.
	Grace time.Duration
	// Now is by the API server's clock, as are the times of what it holds.
	Now time.Time
	// Jobs limits the look to some jobs, by number, page or pod; none means all.
	Jobs []string
}

// pageSize bounds an answer of the API server.
const pageSize = 500

// ManagedPods lists podlane's pods.
func (c *Client) ManagedPods(ctx context.Context, extra string) ([]corev1.Pod, error) {
	selector := LabelManagedBy + "=" + ManagedBy
	if extra != "" {
		selector += "," + extra
	}
	var pods []corev1.Pod
	err := c.each(func(namespace string) error {
		for more := ""; ; {
			page := &corev1.PodList{}
			err := c.retry(ctx, "list pods", func(ctx context.Context) error {
				return c.rest.Get().NamespaceIfScoped(namespace, namespace != "").Resource("pods").
					VersionedParams(&metav1.ListOptions{LabelSelector: selector, Limit: pageSize, Continue: more}, c.params).Do(ctx).Into(page)
			})
			if err != nil {
				return err
			}
			for _, p := range page.Items {
				if c.places.has(p.Namespace) {
					pods = append(pods, p)
				}
			}
			if more = page.Continue; more == "" {
				return nil
			}
		}
	})
	return pods, err
}

// metadataOnly asks for the metadata of objects: the contents of secrets are
// none of our business and must not even reach this process.
const metadataOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// metadata lists podlane's objects of one kind in a namespace, or in all.
func (c *Client) metadata(ctx context.Context, resource, namespace string) ([]metav1.PartialObjectMetadata, error) {
	var items []metav1.PartialObjectMetadata
	more := ""
	for {
		var page metav1.PartialObjectMetadataList
		err := c.retry(ctx, "list "+resource, func(ctx context.Context) error {
			text, err := c.rest.Get().NamespaceIfScoped(namespace, namespace != "").Resource(resource).SetHeader("Accept", metadataOnly).
				VersionedParams(&metav1.ListOptions{LabelSelector: LabelManagedBy + "=" + ManagedBy, Limit: pageSize, Continue: more}, c.params).
				DoRaw(ctx)
			if err != nil {
				return err
			}
			return json.Unmarshal(text, &page)
		})
		if err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if more = page.Continue; more == "" {
			return items, nil
		}
	}
}

// Pods finds pods whose job is over.
func (s Sweep) Pods(ctx context.Context, c *Client) ([]Leftover, error) {
	pods, err := c.ManagedPods(ctx, "")
	if err != nil {
		return nil, err
	}
	var found []Leftover
	for _, p := range pods {
		if why := s.podIsOver(&p); why != "" && s.wants(&p.ObjectMeta) {
			found = append(found, s.leftover(KindPod, &p.ObjectMeta, why))
		}
	}
	return found, nil
}

// Secrets finds secrets without a pod. The secrets are listed before the pods:
// one that has been made since has its pod in the second list, or is too young.
func (s Sweep) Secrets(ctx context.Context, c *Client) ([]Leftover, error) {
	var secrets []metav1.PartialObjectMetadata
	err := c.each(func(namespace string) error {
		some, err := c.metadata(ctx, "secrets", namespace)
		for _, secret := range some {
			if c.places.has(secret.Namespace) {
				secrets = append(secrets, secret)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	pods, err := c.ManagedPods(ctx, "")
	if err != nil {
		return nil, err
	}
	return s.lonely(secrets, pods), nil
}

func (s Sweep) lonely(secrets []metav1.PartialObjectMetadata, pods []corev1.Pod) []Leftover {
	var found []Leftover
	for _, secret := range secrets {
		if len(secret.OwnerReferences) > 0 || secret.DeletionTimestamp != nil || !s.wants(&secret.ObjectMeta) {
			continue // the cluster takes it away with its owner
		}
		hasPod := false
		for _, p := range pods {
			hasPod = hasPod || p.Namespace == secret.Namespace && strings.HasPrefix(secret.Name, p.Name+"-")
		}
		if limit := s.lifetime(&secret.ObjectMeta); !hasPod && s.age(&secret.ObjectMeta) > limit {
			found = append(found, s.leftover(KindSecret, &secret.ObjectMeta, "no pod uses it, and its job has been over for more than "+s.Grace.String()))
		}
	}
	return found
}

// Namespaces finds namespaces that were made for one job each. It needs rights
// beyond those in deploy/rbac.yaml.
func (s Sweep) Namespaces(ctx context.Context, c *Client) ([]Leftover, error) {
	namespaces, err := c.metadata(ctx, "namespaces", "")
	if err != nil {
		return nil, err
	}
	var found []Leftover
	for _, n := range namespaces {
		if n.Labels[LabelJob] == "" || !c.places.has(n.Name) || !s.wants(&n.ObjectMeta) || n.DeletionTimestamp != nil || s.age(&n.ObjectMeta) <= s.lifetime(&n.ObjectMeta) {
			continue
		}
		found = append(found, s.leftover(KindNamespace, &n.ObjectMeta, "its job has been over for more than "+s.Grace.String()))
	}
	return found, nil
}

// podIsOver says why nobody can need a pod any more, or nothing.
//
// While a job is alive, one of podlane's containers runs, or the pod is on its
// way: both end by themselves when no stage has talked to them for
// job.idle_timeout. A stage notices a pod's end within seconds and its runner
// cleans up at once, which is what the grace is for.
func (s Sweep) podIsOver(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return ""
	}
	if age := s.age(&p.ObjectMeta); age > s.lifetime(&p.ObjectMeta) {
		return fmt.Sprintf("older than its job may become: %s", age.Round(time.Second))
	}
	ended, over := endOf(p)
	if since := s.Now.Sub(ended); over && since > s.Grace {
		return fmt.Sprintf("podlane's containers ended %s ago", since.Round(time.Second))
	}
	return ""
}

// endOf tells when the last of podlane's containers ended, and whether all have.
// Service containers don't count.
func endOf(p *corev1.Pod) (ended time.Time, over bool) {
	over = p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	ended = p.CreationTimestamp.Time
	for _, c := range p.Status.Conditions {
		if over && c.LastTransitionTime.After(ended) {
			ended = c.LastTransitionTime.Time
		}
	}
	ours := 0
	for _, status := range p.Status.ContainerStatuses {
		if status.Name != BuildContainer && status.Name != HelperContainer || status.State.Terminated == nil {
			continue
		}
		ours++
		if at := status.State.Terminated.FinishedAt; at.After(ended) {
			ended = at.Time
		}
	}
	return ended, over || ours == 2
}

func (s Sweep) wants(meta *metav1.ObjectMeta) bool {
	return len(s.Jobs) == 0 || slices.ContainsFunc(s.Jobs, func(job string) bool { return isJob(meta, job) })
}

func (s Sweep) leftover(kind string, meta *metav1.ObjectMeta, why string) Leftover {
	return Leftover{
		Kind: kind, Namespace: meta.Namespace, Name: meta.Name, Job: meta.Labels[LabelJob], Project: meta.Annotations[AnnotationProject],
		Age: s.age(meta), Why: why, uid: meta.UID, version: meta.ResourceVersion,
	}
}

func (s Sweep) age(meta *metav1.ObjectMeta) time.Duration {
	return s.Now.Sub(meta.CreationTimestamp.Time)
}

// longestTimeout is for objects that don't say how long their job may take.
const longestTimeout = 30 * 24 * time.Hour

// lifetime is the age beyond which no job can need an object: prepare gives up
// after the job's timeout, and so does the runner.
func (s Sweep) lifetime(meta *metav1.ObjectMeta) time.Duration {
	timeout, err := time.ParseDuration(meta.Annotations[AnnotationTimeout])
	if err != nil {
		timeout = longestTimeout
	}
	return timeout + deadlineMargin + s.Grace
}

// Take deletes a leftover if it is still the one that was found, unchanged:
// whatever has come or moved since belongs to somebody. It tells whether it did.
func (c *Client) Take(ctx context.Context, l Leftover) (taken bool, err error) {
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &l.uid, ResourceVersion: &l.version}}
	resource, namespace := l.Kind+"s", l.Namespace
	err = c.retry(ctx, "delete "+l.Kind+" "+l.Name, func(ctx context.Context) error {
		return c.rest.Delete().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(l.Name).Body(options).Do(ctx).Error()
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return false, nil
	}
	return err == nil, err
}

// IsForbidden tells whether the API server refuses a request to this account.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) }
