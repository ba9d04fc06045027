package podagent

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// A spectator sees what a stage has printed, that it is over, and how.
func TestLookAndWatch(t *testing.T) {
	b := newBox(t)
	if out, err := b.command("status").Output(); err != nil || strings.TrimSpace(string(out)) != `{"stages":[]}` {
		t.Fatalf("%v: %s", err, out)
	}
	header, err := EncodeHeader(Header{Stage: "build_script-1", ScriptBytes: 18, Cache: "hit"})
	if err != nil {
		t.Fatal(err)
	}
	run := b.command("run")
	run.Stdin = strings.NewReader(string(header) + "echo hello; exit 3")
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// The client has gone at once; whoever watches sees the stage to its end, and
	// what is over from any byte on.
	for offset, want := range []string{"hello\n", "ello\n"} {
		watch := b.command("output", "--offset", strconv.Itoa(offset), "build_script-1")
		stdin, err := watch.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		var events strings.Builder
		watch.Stderr = &events
		if out, err := watch.Output(); err != nil || string(out) != want || !strings.Contains(events.String(), `"code":3`) {
			t.Errorf("%v: %q %s", err, out, events.String())
		}
	}
	out, err := b.command("status").Output()
	var status Status
	if err != nil || json.Unmarshal(out, &status) != nil || len(status.Stages) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	s := status.Stages[0]
	if s.ID != "build_script-1" || s.Running || s.Followed || s.Exit == nil || s.Exit.Code != 3 || s.OutputBytes != 6 || s.Cache != "hit" || s.Began.IsZero() {
		t.Errorf("status %+v", s)
	}
	for _, id := range []string{"none", "../etc"} {
		if err := b.command("output", id).Run(); err == nil {
			t.Errorf("there is output of %s", id)
		}
	}
}
