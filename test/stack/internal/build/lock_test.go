package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// flock tells open files apart, not processes: one process can stand for two.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "lock")
	unlock, err := Lock(t.Context(), path, "up in /first", func(string) { t.Error("waited for nobody") })
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	second, err := Lock(t.Context(), path, "up in /second", func(holder string) {
		told = append(told, holder)
		unlock()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer second()
	if want := fmt.Sprintf("up in /first (process %d)", os.Getpid()); len(told) != 1 || told[0] != want {
		t.Errorf("waited for %q, expected %q once", told, want)
	}
	if got, want := holder(path), fmt.Sprintf("up in /second (process %d)", os.Getpid()); got != want {
		t.Errorf("the holder is %q, expected %q", got, want)
	}
}

func TestLockGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(t.Context(), path, "a long up", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = Lock(ctx, path, "down", func(string) { cancel(enough) })
	if !errors.Is(err, enough) || !strings.Contains(err.Error(), "a long up") {
		t.Errorf("got %v, expected the cause and whom it waited for", err)
	}
	if got := holder(path); !strings.HasPrefix(got, "a long up ") {
		t.Errorf("the holder is %q, although it never let go", got)
	}
}

func TestLockKeepsApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	inside := make(chan struct{}, 1)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			unlock, err := Lock(t.Context(), path, "up", nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			select {
			case inside <- struct{}{}:
				<-inside
			default:
				t.Error("two have the lock")
			}
		})
	}
	all.Wait()
}

func TestHolderOfALockThatNobodyHas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(t.Context(), path, "up", nil)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if got := holder(path); got != "another command" {
		t.Errorf("got %q", got)
	}
}
