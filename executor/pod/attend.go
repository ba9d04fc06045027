package pod

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// attendAfter is how long a script must run before its pod is watched: most end
// sooner, and a thousand jobs at once are as many watches.
const attendAfter = 2 * time.Second

// Attendant looks after a pod while a script runs in it. It tells the job log
// what the cluster does to the pod, each thing once, and remembers it for when
// the pod is gone. A broken watch is no error: the script's stream decides.
type Attendant struct {
	client *Client
	name   string
	stop   context.CancelFunc
	work   sync.WaitGroup

	mu         sync.Mutex
	last       *corev1.Pod // as it was seen last
	disruption string      // why the cluster ends the pod
	said       map[string]bool
}

// Attend starts to look after a pod. Stop must be called.
func (c *Client) Attend(ctx context.Context, name string) *Attendant {
	ctx, cancel := context.WithCancel(ctx)
	a := &Attendant{client: c, name: name, stop: cancel, said: map[string]bool{}}
	a.work.Go(func() { a.watch(ctx) })
	return a
}

// Stop ends the watch and waits for it.
func (a *Attendant) Stop() {
	a.stop()
	a.work.Wait()
}

func (a *Attendant) watch(ctx context.Context) {
	pod := a.find(ctx)
	if pod == nil {
		return
	}
	known, err := a.client.eventsOf(ctx, "involvedObject.uid", string(pod.UID))
	old := map[string]bool{}
	for _, e := range known {
		old[string(e.UID)] = true
	}
	pods, events := make(chan *corev1.Pod), make(chan *corev1.Event)
	// A watch that breaks and is taken up again is nothing to tell: the script's
	// own stream does that where it matters.
	quiet := *a.client
	quiet.log = nil
	a.work.Go(func() { quiet.watchPod(ctx, pod, pods) })
	if err == nil {
		a.work.Go(func() { quiet.watchEvents(ctx, pod, events) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-pods:
			a.see(p)
		case e := <-events:
			// What happened before the script began has been told by prepare.
			if !old[string(e.UID)] {
				a.hear(e)
			}
		}
	}
}

// find returns the pod as it is some time into the script.
func (a *Attendant) find(ctx context.Context) *corev1.Pod {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(attendAfter):
		}
		if pod, err := a.client.Look(ctx, a.name); err == nil {
			return pod
		}
	}
}

// see takes a state of the pod; nil means that it is gone.
func (a *Attendant) see(p *corev1.Pod) {
	if p == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = p
	if why := disruptionOf(p); why != "" {
		a.disruption = why
	}
	if p.DeletionTimestamp == nil {
		return
	}
	why := a.disruption
	if why == "" {
		why = "it was deleted"
	}
	grace := time.Duration(0)
	if p.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*p.DeletionGracePeriodSeconds) * time.Second
	}
	a.sayOnce(fmt.Sprintf("the pod is being ended: %s; the script may go on for up to %s", why, grace))
}

func (a *Attendant) hear(e *corev1.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if isLastWord(e.Reason) && a.disruption == "" {
		a.disruption = e.Reason + ": " + e.Message
	}
	if e.Type == corev1.EventTypeWarning && !slices.Contains(tellsItself, e.Reason) {
		a.sayOnce(fmt.Sprintf("warning from the cluster: %s: %s", e.Reason, e.Message))
	}
}

// sayOnce is called with the lock held.
func (a *Attendant) sayOnce(line string) {
	if !a.said[line] {
		a.said[line] = true
		a.client.log.Linef("%s", line)
	}
}

// Explain adds what has been seen to a failure, now that the pod is gone, and
// tells the job log how its containers have ended.
func (a *Attendant) Explain(ctx context.Context, err error) error {
	var f *Failure
	if !errors.As(err, &f) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if there, err := a.client.Look(ctx, a.name); err == nil {
		a.last = there
	}
	if a.last != nil {
		for _, line := range lastStates(a.last) {
			a.client.log.Linef("  %s", line)
		}
	}
	if f.Reason == "pod lost" && a.disruption != "" && !strings.Contains(f.Detail, a.disruption) {
		return &Failure{Reason: f.Reason, Detail: a.disruption, Err: err}
	}
	return err
}

// eventsOf returns what the cluster has said about a pod.
func (c *Client) eventsOf(ctx context.Context, field, value string) ([]corev1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	list := &corev1.EventList{}
	err := c.rest.Get().Namespace(c.namespace).Resource("events").
		VersionedParams(&metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(field, value).String()}, c.params).
		Do(ctx).Into(list)
	return list.Items, err
}

// lastWord is what the cluster has said last about why it ended a pod that is
// not there any more, or "".
func (c *Client) lastWord(ctx context.Context, name string) string {
	events, err := c.eventsOf(ctx, "involvedObject.name", name)
	if err != nil {
		return ""
	}
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	for _, e := range slices.Backward(events) {
		if isLastWord(e.Reason) {
			return e.Reason + ": " + e.Message
		}
	}
	return ""
}
