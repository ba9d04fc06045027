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

// script prints the numbers up to count, in pieces, with a command after each
// piece, and ends with 23.
func script(count, pieces int, after func(piece int) string) string {
	var text strings.Builder
	text.WriteString("printf '<<<\\n'\n")
	for i := range pieces {
		fmt.Fprintf(&text, "seq %d %d\n%s\n", i*count/pieces+1, (i+1)*count/pieces, after(i))
	}
	text.WriteString("printf '>>>\\n'; exit 23")
	return text.String()
}

const wholeLog = "; the log is whole, byte for byte"

const count = 200_000

// during runs a job that prints at once, halts, prints more, halts and prints the
// rest. Something is done to the bed at each halt.
func during(t *testing.T, fault, line string, settings bed.Settings, first, second func(b *bed.Bed)) {
	t.Helper()
	b := start(t, settings, runnersim.Hooks{})
	halts := []*bed.Barrier{b.Barrier(), b.Barrier()}
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{script(count, 3, func(piece int) string {
		if piece < len(halts) {
			return halts[piece].Command
		}
		return ":"
	})}})
	for i, do := range []func(*bed.Bed){first, second} {
		reached(t, job, halts[i])
		do(b)
		halts[i].Open()
	}
	o := finish(t, b, job)
	o.whole(t, numbers(count))
	o.verdict(t, fault+wholeLog, "build failure, exit code 23", line)
}

// reached waits until a job's script is at a barrier.
func reached(t *testing.T, job *gitlabsim.Job, barrier *bed.Barrier) {
	t.Helper()
	if err := barrier.Reached(t.Context()); err != nil {
		trace, _ := job.Trace()
		t.Fatalf("%v\n%s", err, tail(string(trace)))
	}
}

// slowly runs a job that prints for some seconds.
func slowly(t *testing.T, fault string, seconds int, settings bed.Settings) {
	t.Helper()
	b := start(t, settings, runnersim.Hooks{})
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{script(count, seconds, func(int) string { return "sleep 1" })}})
	o := finish(t, b, job)
	o.whole(t, numbers(count))
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

func nothing(*bed.Bed) {}

// Tests without Parallel run before all others and one after the other, so this
// one harms nobody.
func TestAPIServerGone(t *testing.T) {
	t.Run("5s", func(t *testing.T) {
		gone := func(b *bed.Bed) { kill(t, b, "kube-apiserver") }
		back := func(*bed.Bed) {
			time.Sleep(5 * time.Second) // the fault itself
			stack(t, "restart", "kube-apiserver")
		}
		during(t, "API server killed in the middle of the script, back after 5s", "", nil, gone, back)
	})
	t.Run("60s", func(t *testing.T) {
		alone(t)
		b := start(t, nil, runnersim.Hooks{})
		halt, over := b.Barrier(), b.Barrier()
		over.Open()
		job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{script(count, 2, func(piece int) string { return []*bed.Barrier{halt, over}[piece].Command })}})
		reached(t, job, halt)
		kill(t, b, "kube-apiserver")
		halt.Open()
		reached(t, job, over)
		time.Sleep(time.Minute) // the fault itself
		stack(t, "restart", "kube-apiserver")
		back := time.Now()
		o := finish(t, b, job)
		t.Logf("the job ended %s after the API server was back", o.Finished.Sub(back).Round(time.Second))
		o.whole(t, numbers(count))
		o.verdict(t, "API server killed in the middle of the script, back a minute later, when the script has long ended"+wholeLog, "build failure, exit code 23", "warning: lost the connection to the pod")
	})
}

// Jobs prepare, run and clean up while the API server is killed and started
// again and again. It answers some seconds before it knows who may do what.
func TestAPIServerRestarts(t *testing.T) {
	alone(t)
	b := start(t, nil, runnersim.Hooks{})
	var jobs []*gitlabsim.Job
	for range 12 {
		jobs = append(jobs, enqueue(t, b, gitlabsim.JobSpec{Script: []string{script(count, 4, func(int) string { return "sleep 1" })}}))
	}
	over, restarted := make(chan struct{}), make(chan int)
	go func() {
		defer close(restarted)
		for n := 1; ; n++ {
			stack(t, "restart", "kube-apiserver")
			select {
			case <-over:
				restarted <- n
				return
			case <-time.After(rand.N(8 * time.Second)):
			}
		}
	}()
	var ends []outcome
	for _, job := range jobs {
		ends = append(ends, finish(t, b, job))
	}
	close(over)
	t.Logf("the API server was started %d times", <-restarted)
	for _, o := range ends {
		o.whole(t, numbers(count))
		if line := find(o.trace, "podlane: error: "); line != "" {
			t.Error(line)
		}
		o.verdict(t, "API server killed and started again every few seconds while jobs prepare, run and clean up"+wholeLog, "build failure, exit code 23", "")
	}
}

func TestPartRestarted(t *testing.T) {
	for _, part := range []string{"kubelet", "containerd"} {
		t.Run(part, func(t *testing.T) {
			alone(t)
			restart := func(*bed.Bed) { stack(t, "restart", part) }
			during(t, part+" killed and started again in the middle of the script, twice", "", nil, restart, restart)
		})
	}
}

// Whatever is on its way when connections are cut comes later, and once.
func TestCuts(t *testing.T) {
	quick(t)
	p, settings := throughProxy(t, proxy.Faults{})
	// After the first cut the next connection may not be there yet.
	cut := func(*bed.Bed) {
		before := p.Cuts.Load()
		waitFor(t, "a connection to cut", func() bool {
			p.CutAll()
			return p.Cuts.Load() > before
		})
	}
	during(t, "every connection to the API server cut in the middle of the script, twice", "", settings, cut, cut)
}

func TestRandomCuts(t *testing.T) {
	alone(t)
	for i := range *soak {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel() // for -soak
			p, settings := throughProxy(t, proxy.Faults{Life: func() time.Duration { return time.Second + rand.N(19*time.Second) }})
			slowly(t, "every connection to the API server cut after a random 1 to 20 s, for a whole job", 30, settings)
			t.Logf("%d connections were cut", p.Cuts.Load())
		})
	}
}

// The script prints half of its output before every connection falls silent and
// half after it, so that bytes are on the way when it happens.
func TestStall(t *testing.T) {
	alone(t)
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
	quick(t)
	_, settings := throughProxy(t, proxy.Faults{Delay: 150 * time.Millisecond})
	during(t, "300 ms more for every round trip to the API server", "", settings, nothing, nothing)
}

func TestLargeLogThroughCuts(t *testing.T) {
	alone(t)
	const large = 24_000_000
	p, settings := throughProxy(t, proxy.Faults{Life: func() time.Duration { return time.Second + rand.N(4*time.Second) }})
	b := start(t, settings, runnersim.Hooks{})
	job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{script(large, 10, func(int) string { return "sleep 1" })}})
	o := finish(t, b, job)
	o.whole(t, numbers(large))
	o.verdict(t, fmt.Sprintf("a log of %d MB through connections that are cut every few seconds%s", len(o.trace)/1000/1000/100*100, wholeLog), "build failure, exit code 23", "")
	t.Logf("%d connections were cut", p.Cuts.Load())
}
