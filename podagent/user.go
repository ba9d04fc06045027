package podagent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// becomeBuildUser makes a script of a supervisor that is root run with the
// build container's user, so that what git checks out belongs to whoever will
// work with it. The user has no other groups, and a home of its own.
func (s *Supervisor) becomeBuildUser(cmd *exec.Cmd, dir stageDir, pipe *os.File) error {
	uid, gid, err := readBuildUser(s.Layout)
	if err != nil {
		return fmt.Errorf("find the build container's user: %w", err)
	}
	if uid == 0 {
		return nil
	}
	home, err := makeHome(s.Layout, uid, gid)
	if err != nil {
		return fmt.Errorf("make a home for user %d: %w", uid, err)
	}
	// The pipe too: "echo > /dev/stderr" opens it anew.
	if err := errors.Join(os.Lchown(dir.script(), uid, gid), pipe.Chown(uid, gid)); err != nil {
		return fmt.Errorf("hand over to user %d: %w", uid, err)
	}
	cmd.Env = append(cmd.Env[:len(cmd.Env):len(cmd.Env)], "HOME="+home)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return nil
}

// makeHome makes a folder that belongs to the user. The build container can
// put something else in its place, which is then left as it is.
func makeHome(l Layout, uid, gid int) (string, error) {
	home := l.home(uid)
	err := os.Mkdir(home, 0o700)
	if err == nil {
		return home, os.Lchown(home, uid, gid)
	}
	if !errors.Is(err, os.ErrExist) {
		return "", err
	}
	info, err := os.Lstat(home)
	if err != nil {
		return "", err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != uid {
		return "", fmt.Errorf("%s is there, but is not a folder of that user", home)
	}
	return home, nil
}

// readBuildUser parses "uid:gid". The job can put anything into that place: a
// number is all it can say.
func readBuildUser(l Layout) (uid, gid int, err error) {
	f, err := os.OpenFile(l.buildUser(), os.O_RDONLY|sharedFlags, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return 0, 0, err
	}
	u, g, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
	// 31 bits: -1 and what overflows have a meaning of their own to chown.
	uid64, err1 := strconv.ParseUint(u, 10, 31)
	gid64, err2 := strconv.ParseUint(g, 10, 31)
	if err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("%s says %q: expected uid:gid", l.buildUser(), text)
	}
	return int(uid64), int(gid64), nil
}
