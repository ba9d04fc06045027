package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"podlane/podagent"
)

const sharedDir = "shared"

func (n *Node) layout(pod, container string) podagent.Layout {
	layout := podagent.DefaultLayout()
	layout.Shared, layout.State = filepath.Join(n.Dir, pod, sharedDir), filepath.Join(n.Dir, pod, "state-"+container)
	return layout
}

// protocol is that of the streams of an exec: the last one has an exit status in
// JSON.
const protocol = "v4.channel.k8s.io"

// streamsLimit is how long a client may take to open its streams.
const streamsLimit = time.Minute

// exec is the kubelet's end of an exec.
func (n *Node) exec(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	wanted := map[string]bool{"error": true, "stdin": query.Get("input") == "1", "stdout": query.Get("output") == "1", "stderr": query.Get("error") == "1"}
	if _, err := httpstream.Handshake(r, w, []string{protocol}); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	opened := make(chan httpstream.Stream, len(wanted))
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		go func() {
			<-replied
			opened <- s
		}()
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	streams := map[string]httpstream.Stream{}
	for kind, yes := range wanted {
		if !yes {
			delete(wanted, kind)
		}
	}
	for len(streams) < len(wanted) {
		select {
		case s := <-opened:
			streams[s.Headers().Get("streamType")] = s
		case <-time.After(streamsLimit):
			return
		}
	}
	// The request's own context may end with its hijacking.
	ctx, gone := context.WithCancel(context.WithoutCancel(r.Context()))
	defer gone()
	go func() {
		select {
		case <-conn.CloseChan():
			gone()
		case <-ctx.Done():
		}
	}()
	stdout, stderr := io.Discard, io.Discard
	if s := streams["stdout"]; s != nil {
		stdout = s
	}
	if s := streams["stderr"]; s != nil {
		stderr = s
	}
	status := metav1.Status{Status: metav1.StatusSuccess}
	if err := n.agent(ctx, r.PathValue("pod"), r.PathValue("container"), query["command"], streams["stdin"], stdout, stderr); err != nil {
		status = metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
	}
	if answer, err := json.Marshal(status); err == nil {
		_, _ = streams["error"].Write(answer)
	}
}

// agent does what podlane-helper would do in a container.
func (n *Node) agent(ctx context.Context, pod, container string, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(argv) < 2 {
		return fmt.Errorf("%q is no command of podlane-helper", argv)
	}
	layout := n.layout(pod, container)
	switch argv[1] {
	case "ready":
		return json.NewEncoder(stdout).Encode(podagent.ReadyEvent{Event: "ready"})
	case "status":
		return podagent.WriteStatus(layout, stdout)
	case "run":
		server := &podagent.Server{Layout: layout, Program: n.Helper}
		server.Serve(ctx, stdin, stdout, stderr)
		return nil
	}
	return fmt.Errorf("a simulated container does not know %q", argv[1])
}
