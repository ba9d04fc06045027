package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hierarchies are the mount points of cgroup v1 controllers; on a machine with
// v2 only, the one mount point there is.
func hierarchies() (dirs []string, v2 bool, err error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, false, err
	}
	var unified []string
	for _, m := range mounts {
		switch m.fstype {
		case "cgroup":
			dirs = append(dirs, m.target)
		case "cgroup2":
			unified = append(unified, m.target)
		}
	}
	if len(dirs) > 0 {
		return dirs, false, nil
	}
	if len(unified) == 0 {
		return nil, false, errors.New("no cgroup file system is mounted")
	}
	return unified[:1], true, nil
}

// EnsureCgroup makes control group name in every hierarchy. All of a stack's
// pods live below it: stacks don't mix, and what is left can be ended.
func EnsureCgroup(name string) error {
	dirs, v2, err := hierarchies()
	if err != nil {
		return err
	}
	for _, top := range dirs {
		if v2 {
			if err := delegate(top); err != nil {
				return err
			}
		}
		dir := filepath.Join(top, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := inheritCPUs(top, dir); err != nil {
			return err
		}
		if v2 {
			if err := delegate(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate lets the children of a v2 group have all its controllers.
func delegate(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var on []string
	for _, c := range strings.Fields(string(controllers)) {
		on = append(on, "+"+c)
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(strings.Join(on, " ")), 0o644)
}

// inheritCPUs fills in what a new v1 cpuset lacks: it has no CPU and no memory
// node, and takes no process until it has.
func inheritCPUs(top, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(top, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not the cpuset hierarchy
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// KillCgroup kills every process in control group name and below it. It doesn't
// wait for their end.
func KillCgroup(name string) error {
	dirs, _, err := hierarchies()
	if err != nil {
		return err
	}
	for _, top := range dirs {
		groups, err := cgroupTree(filepath.Join(top, name))
		if err != nil {
			return fmt.Errorf("kill control group %s: %w", filepath.Join(top, name), err)
		}
		for _, dir := range groups {
			killGroup(dir)
		}
	}
	return nil
}

// RemoveCgroup kills every process in control group name and below it, and
// removes it. One that isn't there is fine.
func RemoveCgroup(ctx context.Context, name string) error {
	dirs, _, err := hierarchies()
	if err != nil {
		return err
	}
	for _, top := range dirs {
		if err := emptyCgroup(ctx, filepath.Join(top, name)); err != nil {
			return fmt.Errorf("remove control group %s: %w", filepath.Join(top, name), err)
		}
	}
	return nil
}

// emptyLimit is how long killed processes may take to leave their group.
const emptyLimit = 20 * time.Second

func emptyCgroup(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, emptyLimit)
	defer cancel()
	for {
		err := removeCgroupTree(dir)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes are left %s after they were killed: %w", emptyLimit, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func removeCgroupTree(top string) error {
	dirs, err := cgroupTree(top)
	if err != nil {
		return err
	}
	var busy error
	for _, dir := range slices.Backward(dirs) {
		killGroup(dir)
		if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
			busy = err
		}
	}
	return busy
}

// cgroupTree lists top and the groups below it, parents first; none if there
// is no such group.
func cgroupTree(top string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	return dirs, err
}

// killGroup kills what it finds; a process that is gone in between is fine.
func killGroup(dir string) {
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return
	}
	for field := range bytes.FieldsSeq(procs) {
		if pid, err := strconv.Atoi(string(field)); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
