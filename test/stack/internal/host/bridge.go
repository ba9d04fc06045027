// Package host changes the machine that a stack runs on: its bridge, control
// groups, mounts and stray processes.
package host

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// EnsureBridge makes a bridge with the given address, in CIDR form. It must be
// there before the kubelet starts, which takes its node address from it.
func EnsureBridge(ctx context.Context, name, address string) error {
	if !bridgeExists(name) {
		if err := ip(ctx, "link", "add", name, "type", "bridge"); err != nil {
			return err
		}
	}
	if err := ip(ctx, "address", "replace", address, "dev", name); err != nil {
		return err
	}
	mac, err := bridgeMAC(address)
	if err != nil {
		return err
	}
	if err := ip(ctx, "link", "set", name, "address", mac); err != nil {
		return err
	}
	return ip(ctx, "link", "set", name, "up")
}

// bridgeMAC derives the bridge's hardware address from its IP address. A bridge
// without one of its own takes the lowest of its ports' and changes it as pods
// come and go: other pods then send to an address that nobody has, for up to
// half a minute, until they ask anew.
func bridgeMAC(address string) (string, error) {
	addr, _, err := net.ParseCIDR(address)
	if err != nil || addr.To4() == nil {
		return "", fmt.Errorf("address of the bridge is %q, expected an IPv4 address with its prefix length", address)
	}
	// 0a: locally administered.
	return net.HardwareAddr(append([]byte{0x0a, 0x58}, addr.To4()...)).String(), nil
}

// RemoveBridge removes the bridge and the host's ends of pods' links in it.
// One that isn't there is fine.
func RemoveBridge(ctx context.Context, name string) error {
	ports, err := os.ReadDir(filepath.Join("/sys/class/net", name, "brif"))
	if err == nil {
		for _, port := range ports {
			// Its pod's end may take it away at this moment.
			if err := ip(ctx, "link", "delete", port.Name()); err != nil && bridgeExists(port.Name()) {
				return err
			}
		}
	}
	if !bridgeExists(name) {
		return nil
	}
	return ip(ctx, "link", "delete", name)
}

func bridgeExists(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}
