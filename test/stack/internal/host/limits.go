package host

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// inotifyInstances is enough for several stacks: the kubelet, containerd and
// each pod's programs have some, and root has them all.
const inotifyInstances = 1024

const inotifyLimit = "/proc/sys/fs/inotify/max_user_instances"

// RaiseInotify raises the kernel's limit of inotify instances if it is too low
// for several stacks. Its error says how to do that by hand.
func RaiseInotify() error {
	text, err := os.ReadFile(inotifyLimit)
	if err != nil {
		return err
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || now >= inotifyInstances {
		return err
	}
	if err := os.WriteFile(inotifyLimit, []byte(strconv.Itoa(inotifyInstances)), 0o644); err != nil {
		return fmt.Errorf("fs.inotify.max_user_instances is %d, too low for more than two stacks: %w; hint: sysctl fs.inotify.max_user_instances=%d", now, err, inotifyInstances)
	}
	return nil
}
