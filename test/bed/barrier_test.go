package bed

import (
	"os/exec"
	"testing"
)

func TestBarrier(t *testing.T) {
	for _, tool := range []string{"curl", "wget"} {
		t.Run(tool, func(t *testing.T) {
			path, err := exec.LookPath(tool)
			if err != nil {
				t.Skip(err)
			}
			g, err := openGate(t.Context(), "127.0.0.1")
			if err != nil {
				t.Fatal(err)
			}
			defer g.close()
			never, b := g.add(), g.add()
			select {
			case <-b.isReached:
				t.Fatal("nobody is there yet")
			default:
			}
			script := exec.CommandContext(t.Context(), "sh", "-c", "ln -s "+path+" . && PATH=.; "+b.Command+" && echo through")
			script.Dir = t.TempDir()
			out := make(chan string)
			go func() {
				text, err := script.CombinedOutput()
				if err != nil {
					t.Error(err)
				}
				out <- string(text)
			}()
			if err := b.Reached(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case text := <-out:
				t.Fatalf("the script did not wait: %s", text)
			default:
			}
			b.Open()
			b.Open()
			if text := <-out; text != "through\n" {
				t.Errorf("the script printed %q", text)
			}
			select {
			case <-never.isReached:
				t.Error("the other barrier is reached too")
			default:
			}
		})
	}
}
