package faults

import (
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

// script prints so many numbers in pieces over so many seconds and ends with 23.
func script(lines, seconds int) string {
	return fmt.Sprintf(`seq 1 %d > /tmp/all; printf '<<<\n'
size=$(wc -c < /tmp/all); piece=$((size / %d + 1)); i=0
while [ $((i * piece)) -lt $size ]; do dd if=/tmp/all bs=$piece skip=$i count=1 2>/dev/null; i=$((i + 1)); sleep 1; done; printf '>>>\n'; exit 23`, lines, seconds)
}

const wholeLog = "; the log is whole, byte for byte"

// during runs a job that prints for some seconds, and does something to the bed
// while it prints.
func during(t *testing.T, fault string, seconds int, settings bed.Settings, do func(b *bed.Bed)) {
	t.Helper()
	b := start(t, settings, runnersim.Hooks{})
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{script(200_000, seconds)}})
	running(t, job, "\n<<<\n")
	do(b)
	o := finish(t, b, job)
	o.whole(t, numbers(200_000))
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

// The script prints half of its output before every connection falls silent and
// half after it, so that bytes are on the way when it happens.
func TestStall(t *testing.T) {
	p, settings := throughProxy(t, proxy.Faults{})
	b := start(t, settings, runnersim.Hooks{})
	silence := b.Barrier()
	// One entry, so that the log has no commands between the halves.
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{
		"seq 1 200000 > /tmp/half; printf '<<<\\n'; cat /tmp/half\n" + silence.Command + "\ncat /tmp/half; printf '>>>\\n'; exit 23",
	}})
	if err := silence.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Stall()
	silence.Open()
	o := finish(t, b, job)
	o.whole(t, numbers(200_000)+numbers(200_000))
	o.verdict(t, "connections to the API server fall silent without being closed"+wholeLog, "build failure, exit code 23", "")
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
	o.whole(t, numbers(24_000_000))
	o.verdict(t, fmt.Sprintf("a log of %d MB through connections that are cut every few seconds%s", len(o.trace)/1000/1000/100*100, wholeLog), "build failure, exit code 23", "")
	t.Logf("%d connections were cut", p.Cuts.Load())
}
