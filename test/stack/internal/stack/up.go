package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"podlane/test/stack/internal/build"
	"podlane/test/stack/internal/debian"
	"podlane/test/stack/internal/host"
)

const (
	// startLimit is for one daemon to answer: 1 to 3 s on an idle machine, and
	// the machine may be compiling.
	startLimit = 90 * time.Second
	// stopGrace is for a daemon that is stopped because it is out of date.
	stopGrace = 5 * time.Second
)

// Up makes the stack run, with everything as this checkout has it now. What
// runs and is up to date stays; a stack that runs in part is completed.
func (m *Manager) Up(ctx context.Context) error {
	if err := needRoot(); err != nil {
		return err
	}
	unlock, err := m.lock(ctx, "up")
	if err != nil {
		return err
	}
	defer unlock()
	runs := running(m.known())
	owner, err := owner(m.Stack)
	if err != nil {
		return err
	}
	if err := checkOwner(m.Stack, owner, runs); err != nil {
		return err
	}
	fresh := !runs || owner != m.Stack.Dir
	if fresh {
		// A cluster that doesn't run starts empty: pods that only containerd
		// remembers would confuse a kubelet whose API server doesn't.
		if err := m.clear(ctx, owner); err != nil {
			return fmt.Errorf("clear what an earlier stack has left: %w", err)
		}
	}
	if err := takeOwnership(m.Stack); err != nil {
		return err
	}
	return m.up(ctx, fresh)
}

func (m *Manager) up(ctx context.Context, fresh bool) error {
	if err := m.installPackages(ctx); err != nil {
		return err
	}
	programs, err := m.build(ctx)
	if err != nil {
		return err
	}
	// Whoever works on podlane-helper has a cluster all the same, and is told at
	// the end that it runs an old one.
	helperErr := m.buildHelper(ctx)
	if err := errors.Join(writeConfig(m.Stack), m.ensurePasswords()); err != nil {
		return err
	}
	if err := host.EnsureBridge(ctx, m.Stack.Bridge, m.Stack.BridgeIP+"/24"); err != nil {
		return err
	}
	if err := host.EnsureCgroup(cgroup(m.Stack)); err != nil {
		return err
	}
	if err := host.RaiseInotify(); err != nil {
		m.say("%v", err) // one stack works without
	}
	list := parts(m.Stack, programs)
	// These boot while the images are being made.
	if err := m.ensure(ctx, list, partEtcd, partAPIServer, partContainerd, partRegistry, partVault, partS3, partSTS); err != nil {
		return err
	}
	// Vault and S3 have nothing to do with the cluster.
	besideCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var beside sync.WaitGroup
	var vaultErr, s3Err error
	beside.Go(func() { vaultErr = m.prepareVault(besideCtx, find(list, partVault)) })
	beside.Go(func() { s3Err = m.prepareS3(besideCtx, find(list, partS3), find(list, partSTS)) })
	err = m.upCluster(ctx, list, fresh)
	if err != nil {
		cancel()
	}
	beside.Wait()
	if err := errors.Join(err, vaultErr, s3Err); err != nil {
		return err
	}
	if helperErr != nil {
		return fmt.Errorf("the stack is up, but its images have no new podlane-helper: %w", helperErr)
	}
	m.say("up: KUBECONFIG=%s", m.Stack.AdminKubeconfig)
	return nil
}

// upCluster completes the cluster, whose first parts have been started.
func (m *Manager) upCluster(ctx context.Context, list []part, fresh bool) error {
	big, err := m.bigLayers(ctx)
	if err != nil {
		return err
	}
	if err := m.containerdReady(ctx, find(list, partContainerd), fresh); err != nil {
		return err
	}
	cluster, err := m.connect()
	if err != nil {
		return err
	}
	if err := cluster.answers(ctx, find(list, partEtcd), find(list, partAPIServer)); err != nil {
		return err
	}
	if err := m.ensure(ctx, list, partManager, partScheduler, partKubelet); err != nil {
		return err
	}
	if err := m.deliverImages(ctx, big, find(list, partRegistry)); err != nil {
		return err
	}
	return cluster.complete(ctx, list)
}

func (m *Manager) installPackages(ctx context.Context) error {
	if len(debian.Missing()) == 0 {
		return nil
	}
	m.say("installing Debian packages: %v", debian.Missing())
	log, err := m.openLog("packages.log")
	if err != nil {
		return err
	}
	defer log.Close()
	return debian.Ensure(ctx, log)
}

func (m *Manager) openLog(name string) (*os.File, error) {
	if err := os.MkdirAll(m.Stack.LogDir, 0o755); err != nil {
		return nil, err
	}
	return os.Create(filepath.Join(m.Stack.LogDir, name))
}

// build makes all programs that the stack runs.
func (m *Manager) build(ctx context.Context) (programs, error) {
	builder := build.Builder{Root: m.Stack.Root, Cache: m.Cache, Say: m.say}
	paths := map[string]string{}
	for _, s := range build.Servers {
		path, err := builder.Server(ctx, s)
		if err != nil {
			return programs{}, err
		}
		paths[s.Name] = path
	}
	if err := m.buildPrograms(ctx); err != nil {
		return programs{}, err
	}
	p := programs{kube: paths["kube"], etcd: paths["etcd"], vault: paths["vault"], minio: paths["minio"], dir: m.binDir()}
	return p, link(p.vault, m.Stack.VaultProgram)
}

// link makes path a symbolic link to target.
func link(target, path string) error {
	if now, err := os.Readlink(path); err == nil && now == target {
		return nil
	}
	tmp := path + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// buildPrograms makes the programs in images, but for podlane-helper, and the
// stack's own servers.
func (m *Manager) buildPrograms(ctx context.Context) error {
	err := build.Programs(ctx, m.Stack.Root, m.binDir(),
		"./test/stack/registry", "./test/stack/sts", "./test/images/pause", "./test/images/noshell", "./test/images/service")
	if err != nil {
		return fmt.Errorf("build programs for images: %w", err)
	}
	return nil
}

// buildHelper builds podlane-helper. If that fails, the one built before stays,
// and if there is none, a program that does nothing takes its place.
func (m *Manager) buildHelper(ctx context.Context) error {
	err := build.Programs(ctx, m.Stack.Root, m.binDir(), "./cmd/podlane-helper")
	if err == nil {
		return nil
	}
	helper := filepath.Join(m.binDir(), "podlane-helper")
	if _, statErr := os.Stat(helper); errors.Is(statErr, fs.ErrNotExist) {
		err = errors.Join(err, os.Link(filepath.Join(m.binDir(), "noshell"), helper))
	}
	return err
}

// ensure makes the named parts run as they should now.
func (m *Manager) ensure(ctx context.Context, list []part, names ...string) error {
	for _, name := range names {
		p := find(list, name)
		current, err := p.Current()
		if err != nil {
			return err
		}
		if current {
			continue
		}
		if err := p.Stop(ctx, stopGrace); err != nil {
			return err
		}
		if err := portsFree(ctx, p); err != nil {
			return err
		}
		if err := p.Start(); err != nil {
			return err
		}
	}
	return nil
}

// portsFree says it clearly when another program has a part's port, which the
// part itself would bury in its log.
func portsFree(ctx context.Context, p part) error {
	for _, address := range p.listens {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("start %s: its address %s is taken by another program, choose another number in PODLANE_STACK: %w", p.Name, address, err)
		}
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}

// containerdReady waits until containerd answers. At a fresh start it has to
// forget containers that it remembers from a stack that ended in disorder.
func (m *Manager) containerdReady(ctx context.Context, containerd part, fresh bool) error {
	ready := func() error {
		return await(ctx, "containerd", startLimit, []part{containerd}, m.containerd().Ready)
	}
	if err := ready(); err != nil || !fresh {
		return err
	}
	count, err := m.containerd().RemoveContainers(ctx)
	if err != nil {
		return fmt.Errorf("remove containers that an earlier stack has left: %w", err)
	}
	if count == 0 {
		return nil
	}
	if err := errors.Join(containerd.Stop(ctx, containerdGrace), containerd.Start()); err != nil {
		return err
	}
	return ready()
}

func (m *Manager) ensurePasswords() error {
	s := m.Stack
	for _, file := range []string{s.RegistryPasswordFile, s.S3RootPasswordFile, s.S3VaultPasswordFile} {
		if err := ensurePassword(file); err != nil {
			return err
		}
	}
	return writeS3Keys(s)
}

// ensurePassword makes path hold a random password.
func ensurePassword(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeIfChanged(path, 0o600, []byte(randomPassword()))
}
