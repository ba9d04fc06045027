package e2e

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
)

// cutter is a TCP proxy in front of the API server that cuts every connection
// after a while.
type cutter struct {
	address string
	cuts    atomic.Int64
}

func newCutter(t *testing.T, target string, life func() time.Duration) *cutter {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{address: listener.Addr().String()}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { c.pass(t.Context(), conn, target, life()) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		connections.Wait()
	})
	return c
}

func (c *cutter) pass(ctx context.Context, client net.Conn, target string, life time.Duration) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	cut := time.AfterFunc(life, func() {
		c.cuts.Add(1)
		client.Close()
		server.Close()
	})
	defer cut.Stop()
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(server, client); server.Close() })
	both.Go(func() { _, _ = io.Copy(client, server); client.Close() })
	both.Wait()
}

// through writes a kubeconfig like the product's that goes through a proxy.
func through(t *testing.T, b *bed.Bed, proxy string) string {
	t.Helper()
	text, err := os.ReadFile(b.Stack.ProductKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	server := b.Stack.APIServerURL()
	changed := strings.Replace(string(text), server, "https://"+proxy+"\n      tls-server-name: "+b.Stack.BridgeIP, 1)
	if changed == string(text) {
		t.Fatalf("the kubeconfig does not name %s", server)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Every connection to the API server breaks again and again, for the whole of a
// job: not a byte is lost or doubled, and the exit code is right.
func TestConnectionsThatBreak(t *testing.T) {
	t.Parallel()
	needsStack(t)
	began := time.Now()
	c := newCutter(t, strings.TrimPrefix(shared.Stack.APIServerURL(), "https://"), func() time.Duration {
		life := 300*time.Millisecond + rand.N(time.Second)
		if time.Since(began) > time.Minute {
			life *= 10 // a machine that is so slow needs longer for a single byte
		}
		return life
	})
	b := newBed(t, bed.Settings{"kubernetes": {"kubeconfig": quoted(through(t, shared, c.address))}})
	barrier := b.Barrier()
	script := `seq 1 2000000 > /tmp/all; printf '<<<\n'
for i in 0 1 2 3 4 5 6 7; do dd if=/tmp/all bs=2M skip=$i count=1 2>/dev/null; sleep 0.7; done; ` + barrier.Command + `; printf '>>>\n'; exit 23`
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{script}})
	await(t, "the fifth cut", func() bool { return c.cuts.Load() >= 5 })
	barrier.Open()
	o := finish(t, job)
	o.failed(t, 23)
	o.printed(t, numbers(2_000_000))
}
