package pod

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// watchPod sends every state of a pod until ctx ends, the given one first; nil
// means that the pod is gone.
func (c *Client) watchPod(ctx context.Context, pod *corev1.Pod, out chan<- *corev1.Pod) {
	send := func(p *corev1.Pod) {
		select {
		case out <- p:
		case <-ctx.Done():
		}
	}
	send(pod)
	c.watchFor(ctx, watched{resource: "pods", field: "metadata.name", value: pod.Name, since: pod.ResourceVersion}, func(e watch.Event) {
		p, ok := e.Object.(*corev1.Pod)
		switch {
		case !ok || p.UID != pod.UID:
		case e.Type == watch.Deleted:
			send(nil)
		default:
			send(p)
		}
	}, func() {
		// A watch that starts after the pod has gone tells nothing of it.
		if there, err := c.Get(ctx, pod.Name); apierrors.IsNotFound(err) || err == nil && there.UID != pod.UID {
			send(nil)
		}
	})
}

// watchEvents sends what the cluster's components say about a pod.
func (c *Client) watchEvents(ctx context.Context, pod *corev1.Pod, out chan<- *corev1.Event) {
	c.watchFor(ctx, watched{resource: "events", field: "involvedObject.uid", value: string(pod.UID)}, func(e watch.Event) {
		event, ok := e.Object.(*corev1.Event)
		if !ok || e.Type == watch.Deleted {
			return
		}
		select {
		case out <- event:
		case <-ctx.Done():
		}
	}, func() {})
}

// watchNode calls gone once if a node is taken out of the cluster, and returns.
// Most accounts may not look at nodes: it returns then, too. Nodes are the one
// thing outside of the namespace that podlane looks at: see deploy/node-watch.yaml.
func (c *Client) watchNode(ctx context.Context, name string, gone func()) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	deleted := func() {
		gone()
		stop()
	}
	nodes := c.In("")
	nodes.watchFor(ctx, watched{resource: "nodes", field: "metadata.name", value: name, optional: true}, func(e watch.Event) {
		if e.Type == watch.Deleted {
			deleted()
		}
	}, func() {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		if apierrors.IsNotFound(nodes.rest.Get().Resource("nodes").Name(name).Do(ctx).Error()) {
			deleted()
		}
	})
}

// watched is what a watch is about: objects with that value in a field.
type watched struct {
	resource, field, value string
	// since is a state that is known: a first watch tells what has happened
	// after it, and misses nothing.
	since string
	// optional is what this account need not be allowed to watch.
	optional bool
}

// watchFor watches until ctx ends, and starts again whenever the API server
// ends the watch. But for a known state, the first events of each start are the
// present state, and started is called then: a watch does not tell what has gone
// before it.
func (c *Client) watchFor(ctx context.Context, what watched, each func(watch.Event), started func()) {
	pause := newBackOff()
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(what.field, what.value).String(), Watch: true, ResourceVersion: what.since}
	allowed := false
	for ctx.Err() == nil {
		began := time.Now()
		w, err := c.rest.Get().NamespaceIfScoped(c.namespace, c.namespace != "").Resource(what.resource).VersionedParams(&options, c.params).Watch(ctx)
		switch {
		case err == nil:
			allowed = true
			if options.ResourceVersion == "" {
				started()
			}
			drain(ctx, w, each)
		case apierrors.IsForbidden(err) && what.optional && !allowed:
			return
		}
		options.ResourceVersion = ""
		if time.Since(began) > time.Minute {
			pause.Reset()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.NextBackOff()):
		}
	}
}

func drain(ctx context.Context, w watch.Interface, each func(watch.Event)) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, open := <-w.ResultChan():
			if !open || e.Type == watch.Error {
				return
			}
			if e.Object == runtime.Object(nil) {
				continue
			}
			each(e)
		}
	}
}
