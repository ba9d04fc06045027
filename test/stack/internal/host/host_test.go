package host

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseMount(t *testing.T) {
	tests := []struct {
		line string
		want mount
		ok   bool
	}{
		{"tmpfs /run/podlane-7/x tmpfs rw 0 0", mount{"/run/podlane-7/x", "tmpfs"}, true},
		{`overlay /my\040checkout\134x overlay rw 0 0`, mount{`/my checkout\x`, "overlay"}, true},
		{"short", mount{}, false},
	}
	for _, test := range tests {
		got, ok := parseMount(test.line)
		if ok != test.ok || got != test.want {
			t.Errorf("%q is %+v, %v", test.line, got, ok)
		}
	}
}

func TestBelow(t *testing.T) {
	dirs := []string{"/run/podlane-1", "/c/.local/stack-1"}
	tests := map[string]bool{
		"/run/podlane-1":              true,
		"/run/podlane-1/containerd/x": true,
		"/c/.local/stack-1/kubelet":   true,
		"/run/podlane-10":             false,
		"/run":                        false,
		"/":                           false,
	}
	got := map[string]bool{}
	for path := range tests {
		got[path] = below(path, dirs)
	}
	if diff := cmp.Diff(tests, got); diff != "" {
		t.Error(diff)
	}
}

func TestIsShim(t *testing.T) {
	const socket = "/run/podlane-1/containerd/containerd.sock"
	tests := []struct {
		name string
		args []string
		want bool
	}{
		{"ours", []string{"/usr/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "a", "-address", socket}, true},
		{"another containerd's", []string{"/usr/bin/containerd-shim-runc-v2", "-address", "/run/containerd/containerd.sock"}, false},
		{"another stack's", []string{"/usr/bin/containerd-shim-runc-v2", "-address", strings.Replace(socket, "-1", "-10", 1)}, false},
		{"not a shim", []string{"ctr", "-address", socket}, false},
		{"no value", []string{"/usr/bin/containerd-shim-runc-v2", "-address"}, false},
		{"a kernel thread", nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cmdline := []byte(strings.Join(test.args, "\x00") + "\x00")
			if got := isShim(cmdline, socket); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestBridgeMAC(t *testing.T) {
	if got, err := bridgeMAC("10.107.0.1/24"); err != nil || got != "0a:58:0a:6b:00:01" {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := bridgeMAC("nonsense"); err == nil {
		t.Error("nonsense has a hardware address")
	}
}
