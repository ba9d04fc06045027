package faults

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"podlane/test/bed"
	"podlane/test/faults/proxy"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
)

// script prints so many lines in pieces over so many seconds, with the digest of
// all of it first, and ends with 23.
func script(lines, seconds int) string {
	return fmt.Sprintf(`seq 1 %d > /tmp/all; printf 'digest='; sha256sum < /tmp/all; printf '\n<<<'
size=$(wc -c < /tmp/all); piece=$((size / %d + 1)); i=0
while [ $((i * piece)) -lt $size ]; do dd if=/tmp/all bs=$piece skip=$i count=1 2>/dev/null; i=$((i + 1)); sleep 1; done; printf '>>>\n'; exit 23`, lines, seconds)
}

// whole checks that a log has exactly what the script has printed.
func (o outcome) whole(t *testing.T) {
	t.Helper()
	_, rest, _ := strings.Cut(o.trace, "\ndigest=")
	_, body, ok := strings.Cut(rest, "\n<<<")
	end := strings.LastIndex(body, ">>>\n")
	if !ok || end < 0 {
		t.Fatal("the log lacks the output")
	}
	if sum := sha256.Sum256([]byte(body[:end])); hex.EncodeToString(sum[:]) != rest[:64] {
		t.Errorf("the %d bytes in the log are not those that the script wrote", end)
	}
}

const wholeLog = "; the log is whole, byte for byte"

// during runs a job that prints for some seconds, and does something to the bed
// while it prints.
func during(t *testing.T, fault string, seconds int, settings bed.Settings, do func(b *bed.Bed)) {
	t.Helper()
	b := start(t, settings, runnersim.Hooks{})
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{script(200_000, seconds)}})
	running(t, job, "\n<<<")
	do(b)
	o := finish(t, b, job)
	o.whole(t)
	o.verdict(t, fault+wholeLog, "build failure, exit code 23", "")
}

// kill ends a part of the stack as a crash would.
func kill(t *testing.T, b *bed.Bed, part string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Stack.RunDir, part+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil || pid <= 1 {
		t.Fatalf("the record of %s is %q", part, text)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestAPIServerGone(t *testing.T) {
	for _, gone := range []time.Duration{5 * time.Second, time.Minute} {
		t.Run(gone.String(), func(t *testing.T) {
			during(t, "API server killed in the middle of the script, back after "+gone.String(), 10+int(gone.Seconds()), nil, func(b *bed.Bed) {
				kill(t, b, "kube-apiserver")
				time.Sleep(gone) // the fault itself
				stack(t, "restart", "kube-apiserver")
			})
		})
	}
}

func TestPartRestarted(t *testing.T) {
	for _, part := range []string{"kubelet", "containerd"} {
		t.Run(part, func(t *testing.T) {
			during(t, part+" killed and started again in the middle of the script", 20, nil, func(*bed.Bed) { stack(t, "restart", part) })
		})
	}
}

func TestRandomCuts(t *testing.T) {
	for i := range *soak {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			p, settings := throughProxy(t, proxy.Faults{Life: func() time.Duration { return time.Second + rand.N(19*time.Second) }})
			during(t, "every connection to the API server cut after a random 1 to 20 s, for a whole job", 30, settings, func(*bed.Bed) {})
			t.Logf("%d connections were cut", p.Cuts.Load())
		})
	}
}

func TestStall(t *testing.T) {
	first := make(chan struct{}, 3)
	p, settings := throughProxy(t, proxy.Faults{Stall: func() time.Duration {
		select {
		case first <- struct{}{}: // the first three of the job
			return time.Second + rand.N(3*time.Second)
		default:
			return -1
		}
	}})
	during(t, "connections to the API server fall silent without being closed", 60, settings, func(*bed.Bed) {})
	if p.Stalls.Load() == 0 {
		t.Error("no connection has stalled: the test proves nothing")
	}
}

func TestDelay(t *testing.T) {
	_, settings := throughProxy(t, proxy.Faults{Delay: 150 * time.Millisecond})
	during(t, "300 ms more for every round trip to the API server", 10, settings, func(*bed.Bed) {})
}

func TestLargeLogThroughCuts(t *testing.T) {
	p, settings := throughProxy(t, proxy.Faults{Life: func() time.Duration { return time.Second + rand.N(4*time.Second) }})
	b := start(t, settings, runnersim.Hooks{})
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{script(24_000_000, 10)}})
	o := finish(t, b, job)
	o.whole(t)
	o.verdict(t, fmt.Sprintf("a log of %d MB through connections that are cut every few seconds%s", len(o.trace)/1000/1000/100*100, wholeLog), "build failure, exit code 23", "")
	t.Logf("%d connections were cut", p.Cuts.Load())
}
