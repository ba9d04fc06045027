package stack

import (
	"context"
	"fmt"
	"strings"
)

// Restart ends one part, by SIGKILL as a crash would, and starts it again as
// it was: tests do this to an API server or kubelet that jobs are using.
func (m *Manager) Restart(ctx context.Context, name string) error {
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := m.lock(ctx, "restart")
	if err != nil {
		return err
	}
	defer unlock()
	list := m.known()
	owner, err := owner(m.Stack)
	if err != nil {
		return err
	}
	if err := checkOwner(m.Stack, owner, running(list)); err != nil {
		return err
	}
	var names []string
	for _, p := range list {
		names = append(names, p.Name)
	}
	if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+name+" ") {
		return fmt.Errorf("there is no part %q, expected one of %s", name, strings.Join(names, ", "))
	}
	programs, err := m.build(ctx)
	if err != nil {
		return err
	}
	p := find(parts(m.Stack, programs), name)
	if err := p.Stop(ctx, 0); err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	if name == partVault { // which is sealed when it starts
		return m.prepareVault(ctx, p)
	}
	return nil
}
