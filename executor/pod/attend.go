package pod

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// attendAfter is how long a script must run before its pod is watched: most end
// sooner, and a thousand jobs at once are as many watches.
const attendAfter = 2 * time.Second

// lastGasp is what a stream gets to end by itself when the pod is lost: the end
// of a script may be on its way.
const lastGasp = time.Second

// Attendant looks after a pod while a script runs in it. It tells the job log
// what the cluster does to the pod, each thing once, and remembers it for when
// the pod is gone. A stream to a pod that is lost may stay open for minutes,
// since the node goes on or nobody is there to close it: While ends it.
// A broken watch is no error: the script's stream decides.
type Attendant struct {
	client   *Client
	name     string
	services []Service
	stop     context.CancelFunc
	work     sync.WaitGroup
	over     chan struct{} // closed some time after lost is set

	mu         sync.Mutex
	last       *corev1.Pod // as it was seen last
	disruption string      // why the cluster ends the pod
	lost       *Failure
	said       map[string]bool
	ended      map[string]bool // services that have ended, true if that was told
}

// Attend starts to look after a pod and its services. Stop must be called.
func (c *Client) Attend(ctx context.Context, name string, services []Service) *Attendant {
	ctx, cancel := context.WithCancel(ctx)
	a := newAttendant(c, name, services)
	a.stop = cancel
	a.work.Go(func() { a.watch(ctx) })
	return a
}

func newAttendant(c *Client, name string, services []Service) *Attendant {
	return &Attendant{client: c, name: name, services: services, over: make(chan struct{}), said: map[string]bool{}, ended: map[string]bool{}}
}

// Stop ends the watch and waits for it.
func (a *Attendant) Stop() {
	a.stop()
	a.work.Wait()
}

// While returns a context that ends when the pod is lost.
func (a *Attendant) While(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-a.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// WhyLost is Client.WhyLost with what has been seen so far.
func (a *Attendant) WhyLost(ctx context.Context) error {
	if err := a.client.WhyLost(ctx, a.name); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost != nil {
		return a.lost
	}
	return nil
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
	for _, s := range pod.Status.ContainerStatuses {
		if s.State.Terminated != nil {
			a.ended[s.Name] = false // before this script
		}
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
	if node := pod.Spec.NodeName; node != "" {
		a.work.Go(func() { quiet.watchNode(ctx, node, func() { a.loseNode(node) }) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-pods:
			a.see(p)
			a.seeServices(ctx, p)
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
		pod, err := a.client.Look(ctx, a.name)
		switch {
		case err == nil:
			return pod
		case apierrors.IsNotFound(err):
			a.see(nil)
			return nil
		}
	}
}

// see takes a state of the pod; nil means that it is gone.
func (a *Attendant) see(p *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p == nil {
		a.lose(&Failure{Reason: "pod lost", Detail: cmp.Or(a.disruption, "it was deleted")})
		return
	}
	a.last = p
	if why := disruptionOf(p); why != "" {
		a.disruption = why
	}
	if f := Lost(p); f != nil {
		a.lose(f)
		return
	}
	if p.DeletionTimestamp == nil {
		return
	}
	grace := time.Duration(0)
	if p.DeletionGracePeriodSeconds != nil {
		grace = time.Duration(*p.DeletionGracePeriodSeconds) * time.Second
	}
	a.sayOnce(fmt.Sprintf("the pod is being ended: %s; the script may go on for up to %s", cmp.Or(a.disruption, "it was deleted"), grace))
}

// lose is called with the lock held.
func (a *Attendant) lose(f *Failure) {
	if a.lost == nil {
		a.lost = f
		time.AfterFunc(lastGasp, func() { close(a.over) })
	}
}

// loseNode takes the end of the pod's node for the pod's: the cluster deletes the
// pod as well, a minute later.
func (a *Attendant) loseNode(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lose(&Failure{Reason: "pod lost", Detail: "its node " + node + " was taken out of the cluster"})
}

// seeServices tells of services that end in an error while the script runs.
func (a *Attendant) seeServices(ctx context.Context, p *corev1.Pod) {
	if p == nil || whyLeaving(p) != "" {
		return
	}
	for _, s := range p.Status.ContainerStatuses {
		t := s.State.Terminated
		if t == nil || t.ExitCode == 0 {
			continue
		}
		if _, known := a.ended[s.Name]; known {
			continue
		}
		for _, svc := range a.services {
			if svc.Container == s.Name {
				a.client.ReportService(ctx, p, svc, t)
				a.mu.Lock()
				a.ended[s.Name] = true
				a.mu.Unlock()
			}
		}
	}
}

// Told tells whether the log has the end of a service already.
func (a *Attendant) Told(svc Service) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended[svc.Container]
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
	if there, err := a.client.Look(ctx, a.name); err == nil && (a.last == nil || there.UID == a.last.UID) {
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
