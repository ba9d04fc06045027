package pod

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// maxServiceLog bounds what is shown of one service, in bytes.
const maxServiceLog = 4 << 20

// DebugServices passes on what services print until stop is called, which waits
// for the rest: CI_DEBUG_SERVICES.
// https://docs.gitlab.com/ci/services/#capturing-service-container-logs
func (c *Client) DebugServices(ctx context.Context, pod string, services []Service) (stop func()) {
	following, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	for _, svc := range services {
		work.Go(func() {
			shown := c.copyLog(following, pod, svc, true, 0)
			// The stream was cut when the script ended. What the service had
			// printed until then is shown in any case.
			c.copyLog(ctx, pod, svc, false, shown)
		})
	}
	return func() {
		cancel()
		work.Wait()
	}
}

// copyLog shows a service's log from an offset on and returns how far it came:
// whole lines only.
func (c *Client) copyLog(ctx context.Context, pod string, svc Service, follow bool, from int64) int64 {
	if !follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	body, err := c.rest.Get().Namespace(c.namespace).Resource("pods").Name(pod).SubResource("log").
		VersionedParams(&corev1.PodLogOptions{Container: svc.Container, Follow: follow, LimitBytes: new(int64(maxServiceLog))}, c.params).
		Stream(ctx)
	if err != nil {
		return from
	}
	defer body.Close()
	if _, err := io.CopyN(io.Discard, body, from); err != nil {
		return from
	}
	in := bufio.NewReaderSize(body, 4<<10)
	for at := from; ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			// A line that was cut comes again; the last one of all may have no end.
			if !follow && len(line) > 0 {
				c.log.Linef("[service:%s] %s", svc.Name, line)
			}
			return at
		}
		at += int64(len(line))
		c.log.Linef("[service:%s] %s", svc.Name, bytes.TrimRight(line, "\r\n"))
	}
}
