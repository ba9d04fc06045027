package stack

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"podlane/test/stack/internal/host"
)

// Down stops the stack and removes the cluster: its objects, pods, network.
// What makes the next start fast stays (images, certificates, logs), unless
// purge is set. It works on whatever is there: after a start that failed, after
// a crash, and twice in a row.
func (m *Manager) Down(ctx context.Context, purge bool) error {
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := m.lock(ctx, "down")
	if err != nil {
		return err
	}
	defer unlock()
	owner, err := owner(m.Stack)
	if err != nil {
		return err
	}
	if err := checkOwner(m.Stack, owner, running(m.known())); err != nil {
		return err
	}
	if err := m.clear(ctx, owner); err != nil {
		return err
	}
	if purge {
		if err := os.RemoveAll(m.Stack.Dir); err != nil {
			return err
		}
	}
	m.say("down")
	return nil
}

// containerdGrace is for containerd to close its database; it takes 50 ms.
const containerdGrace = 5 * time.Second

// clear ends every process of the stack and removes all state of the cluster.
// Owner is whose cluster it is: if not ours, then one that nobody misses.
func (m *Manager) clear(ctx context.Context, owner string) error {
	list := m.known()
	// The kubelet comes first: it would start anew what ends under its eyes.
	// Nothing of etcd's data will be read again, so nobody needs to say goodbye.
	for _, p := range slices.Backward(list) {
		if p.Name == partContainerd {
			continue
		}
		if err := p.Stop(ctx, 0); err != nil {
			return err
		}
	}
	if err := m.endContainers(ctx, find(list, partContainerd)); err != nil {
		return err
	}
	s := m.Stack
	if err := host.UnmountBelow(s.Dir, s.RunDir, owner); err != nil {
		return err
	}
	if err := host.RemoveBridge(ctx, s.Bridge); err != nil {
		return err
	}
	if owner != s.Dir {
		if err := removeCluster(owner); err != nil {
			return err
		}
	}
	return errors.Join(removeCluster(s.Dir), os.RemoveAll(s.RunDir))
}

// removeCluster removes a cluster's objects and pods, and what is in Vault and S3, from a stack's folder.
func removeCluster(dir string) error {
	podLogs := filepath.Join(dir, "pod-logs")
	if err := removeLogLinks(podLogs); err != nil {
		return err
	}
	// The audit log is about objects that are gone with the cluster.
	gone, err := filepath.Glob(filepath.Join(dir, "log", "audit*.log"))
	if err != nil {
		return err
	}
	for _, name := range []string{"etcd", "kubelet", "vault", "s3", filepath.Join("log", "vault-audit.log")} {
		gone = append(gone, filepath.Join(dir, name))
	}
	gone = append(gone, podLogs)
	for _, path := range gone {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// endContainers ends all pods and containerd. Whether containerd forgets them
// in good order is not decisive: the next start makes sure.
func (m *Manager) endContainers(ctx context.Context, containerd part) error {
	group := cgroup(m.Stack)
	if containerd.Pid() != 0 {
		if err := host.KillCgroup(group); err != nil {
			return err
		}
		if _, err := m.containerd().RemoveContainers(ctx); err != nil {
			m.say("containerd did not remove its containers: %v", err)
		}
	}
	if err := containerd.Stop(ctx, containerdGrace); err != nil {
		return err
	}
	if _, err := host.KillShims(m.Stack.ContainerdSocket); err != nil {
		return err
	}
	return host.RemoveCgroup(ctx, group)
}

// removeLogLinks removes the links that the kubelet keeps for log collectors
// in a folder that it lets nobody choose.
func removeLogLinks(podLogs string) error {
	const dir = "/var/log/containers"
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		link := filepath.Join(dir, e.Name())
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, podLogs+"/") {
			continue
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("a stack needs root: it makes control groups, mounts and network links")
	}
	return nil
}
