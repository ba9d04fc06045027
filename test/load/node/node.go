// Package node simulates a kubelet, for more jobs at once than this machine has
// room for: its pods have no containers. Sessions of stages are real: they are
// served by podagent, with scripts that run on this machine.
package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// Options of a node.
type Options struct {
	// Name is the node's, and the value of its only label, which is Label.
	Name string
	// API is an administrator's.
	API rest.Interface
	// Address is where the API server reaches this machine.
	Address string
	// CertFile and KeyFile are a kubelet's certificate for that address.
	CertFile, KeyFile string
	// Helper is podlane-helper.
	Helper string
	// Dir gets the pods' files.
	Dir string
	// Log is told what does not work.
	Log func(format string, args ...any)
}

// Label is the node's.
const Label = "podlane-load"

// heartbeat keeps the cluster's patience, which is 40 s.
const heartbeat = 10 * time.Second

// Node is a running one.
type Node struct {
	Options
	stop    context.CancelFunc
	workers sync.WaitGroup
	server  http.Server
	port    int32

	mu   sync.Mutex
	pods map[types.UID]bool
}

// Start makes the node a part of the cluster.
func Start(ctx context.Context, o Options) (*Node, error) {
	certificate, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("simulate a node: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(o.Address, "0"))
	if err != nil {
		return nil, fmt.Errorf("simulate a node: %w", err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	number, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return nil, err
	}
	n := &Node{Options: o, port: int32(number), pods: map[types.UID]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", n.exec)
	// SPDY wants HTTP/1.1.
	n.server = http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	n.workers.Go(func() {
		_ = n.server.Serve(tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}))
	})
	ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.register(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("simulate a node: %w", err), n.Close(ctx))
	}
	n.workers.Go(func() { n.beat(ctx) })
	n.workers.Go(func() { n.keepPods(ctx) })
	return n, nil
}

// Close takes the node out of the cluster.
func (n *Node) Close(ctx context.Context) error {
	n.stop()
	err := n.server.Close()
	n.workers.Wait()
	gone := n.API.Delete().Resource("nodes").Name(n.Name).Do(context.WithoutCancel(ctx)).Error()
	if !apierrors.IsNotFound(gone) {
		err = errors.Join(err, gone)
	}
	return err
}

func (n *Node) register(ctx context.Context) error {
	body := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{Label: n.Name}},
		// Nobody else's pods come here.
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: Label, Effect: corev1.TaintEffectNoSchedule}}},
	}
	err := n.API.Post().Resource("nodes").Body(body).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return n.tellStatus(ctx)
}

// tellStatus says that the node is there and has room.
func (n *Node) tellStatus(ctx context.Context) error {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1000"), corev1.ResourceMemory: resource.MustParse("1000Gi"), corev1.ResourcePods: resource.MustParse("2000"),
	}
	now := metav1.Now()
	status := corev1.NodeStatus{
		Capacity: room, Allocatable: room,
		Conditions:      []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Simulated", LastHeartbeatTime: now, LastTransitionTime: now}},
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.Address}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: n.port}},
	}
	return n.patchStatus(ctx, n.API.Patch(types.StrategicMergePatchType).Resource("nodes").Name(n.Name), status)
}

func (n *Node) patchStatus(ctx context.Context, request *rest.Request, status any) error {
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	return request.SubResource("status").Body(body).Do(ctx).Error()
}

func (n *Node) beat(ctx context.Context) {
	for pause(ctx, heartbeat) {
		if err := n.tellStatus(ctx); err != nil && ctx.Err() == nil {
			n.Log("the simulated node: %v", err)
		}
	}
}

// keepPods starts and ends pods as the API server says, also after it was away.
func (n *Node) keepPods(ctx context.Context) {
	options := &metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name}
	for {
		var list corev1.PodList
		err := n.API.Get().Resource("pods").VersionedParams(options, metav1.ParameterCodec).Do(ctx).Into(&list)
		if err == nil {
			for i := range list.Items {
				n.workers.Go(func() { n.keep(ctx, &list.Items[i]) })
			}
			err = n.watchPods(ctx, list.ResourceVersion)
		}
		if err != nil && ctx.Err() == nil {
			n.Log("the simulated node: %v", err)
		}
		if !pause(ctx, 500*time.Millisecond) {
			return
		}
	}
}

func (n *Node) watchPods(ctx context.Context, from string) error {
	options := &metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.Name, ResourceVersion: from, Watch: true}
	changes, err := n.API.Get().Resource("pods").VersionedParams(options, metav1.ParameterCodec).Watch(ctx)
	if err != nil {
		return err
	}
	defer changes.Stop()
	for change := range changes.ResultChan() {
		if pod, ok := change.Object.(*corev1.Pod); ok {
			n.workers.Go(func() { n.keep(ctx, pod) })
		}
	}
	return nil
}

// keep does what a kubelet does next with a pod.
func (n *Node) keep(ctx context.Context, pod *corev1.Pod) {
	n.mu.Lock()
	started := n.pods[pod.UID]
	n.pods[pod.UID] = true
	n.mu.Unlock()
	var err error
	at := n.API.Delete().Namespace(pod.Namespace).Resource("pods").Name(pod.Name)
	switch {
	case pod.DeletionTimestamp != nil:
		none := int64(0)
		err = at.Body(&metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &pod.UID}}).Do(ctx).Error()
	case !started && pod.Status.Phase == corev1.PodPending:
		err = n.startPod(ctx, pod)
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		n.mu.Lock()
		delete(n.pods, pod.UID) // the next list brings it again
		n.mu.Unlock()
		n.Log("the simulated node: pod %s: %v", pod.Name, err)
	}
}

// startPod says that a pod's containers run.
func (n *Node) startPod(ctx context.Context, pod *corev1.Pod) error {
	now, yes := metav1.Now(), true
	status := corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, HostIP: n.Address}
	for _, c := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	for _, c := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Image: c.Image, Ready: true, Started: &yes, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		})
		if err := os.MkdirAll(n.layout(pod.Name, c.Name).State, 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(n.Dir, pod.Name, sharedDir), 0o755); err != nil {
		return err
	}
	return n.patchStatus(ctx, n.API.Patch(types.StrategicMergePatchType).Namespace(pod.Namespace).Resource("pods").Name(pod.Name), status)
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
