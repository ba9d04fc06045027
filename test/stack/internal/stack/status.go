package stack

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// statusLimit is for the API server's answers; one that hangs is down.
const statusLimit = 5 * time.Second

// Status writes a line for each part and returns whether all is well.
func (m *Manager) Status(ctx context.Context, out io.Writer) (bool, error) {
	list := m.known()
	owner, err := owner(m.Stack)
	if err != nil {
		return false, err
	}
	if err := checkOwner(m.Stack, owner, running(list)); err != nil {
		return false, err
	}
	ok := true
	for _, p := range list {
		state := "down"
		if pid := p.Pid(); pid != 0 {
			state = fmt.Sprintf("up    pid %d", pid)
		} else {
			ok = false
		}
		fmt.Fprintln(out, strings.TrimSpace(fmt.Sprintf("%-24s %-16s %s", p.Name, state, strings.Join(p.listens, " "))))
	}
	state := "ready " + m.Stack.APIServerURL()
	if err := m.clusterHealthy(ctx); err != nil {
		ok = false
		state = "down  " + err.Error()
	}
	fmt.Fprintf(out, "%-24s %s\n", "cluster", state)
	return ok, nil
}

func (m *Manager) clusterHealthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	c, err := m.connect()
	if err != nil {
		return err
	}
	return c.healthy(ctx)
}
