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

// watchPod sends every state of a pod until ctx ends; nil means that the pod
// is gone. It starts with the present state.
func (c *Client) watchPod(ctx context.Context, pod *corev1.Pod, out chan<- *corev1.Pod) {
	selector := fields.OneTermEqualSelector("metadata.name", pod.Name).String()
	send := func(p *corev1.Pod) {
		select {
		case out <- p:
		case <-ctx.Done():
		}
	}
	c.watchFor(ctx, "pods", selector, func(e watch.Event) {
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
	selector := fields.OneTermEqualSelector("involvedObject.uid", string(pod.UID)).String()
	c.watchFor(ctx, "events", selector, func(e watch.Event) {
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

// watchFor watches until ctx ends, and starts again whenever the API server
// ends the watch. The first events of each start are the present state.
func (c *Client) watchFor(ctx context.Context, resource, selector string, each func(watch.Event), restarted func()) {
	pause := newBackOff()
	for ctx.Err() == nil {
		began := time.Now()
		w, err := c.rest.Get().Namespace(c.namespace).Resource(resource).
			VersionedParams(&metav1.ListOptions{FieldSelector: selector, Watch: true}, c.params).
			Watch(ctx)
		if err == nil {
			drain(ctx, w, each)
		}
		if time.Since(began) > time.Minute {
			pause.Reset()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.NextBackOff()):
		}
		restarted()
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
