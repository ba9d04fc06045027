package debian

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMissing(t *testing.T) {
	none := missing(func(string) bool { return true })
	if none != nil {
		t.Errorf("with all files there, %v is missing", none)
	}
	got := missing(func(file string) bool {
		return file != "/usr/bin/containerd" && file != "/usr/bin/ctr" && file != "/usr/sbin/runc"
	})
	if diff := cmp.Diff([]string{"containerd", "runc"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseTargets(t *testing.T) {
	const out = `bookworm main http://deb.example/debian/
bookworm contrib http://deb.example/debian/
bookworm-updates main http://deb.example/debian/
bookworm-security main http://deb.example/debian-security/
bookworm main http://mirror.example/debian/
nodistro main https://deb.example/node/
`
	got := parseTargets([]byte(out), "bookworm")
	if got.mirror != "http://deb.example/debian/" {
		t.Errorf("mirror is %q", got.mirror)
	}
	if diff := cmp.Diff([]string{"main", "contrib"}, got.components); diff != "" {
		t.Error(diff)
	}
	if other := parseTargets([]byte(out), "trixie"); other.mirror != "" {
		t.Errorf("a release that is not there has mirror %q", other.mirror)
	}
}

func TestOSReleaseValue(t *testing.T) {
	const text = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nX_VERSION_CODENAME=no\n"
	for key, want := range map[string]string{"VERSION_CODENAME": "bookworm", "NAME": "Debian GNU/Linux", "ID": ""} {
		if got := osReleaseValue([]byte(text), key); got != want {
			t.Errorf("%s is %q, expected %q", key, got, want)
		}
	}
}

func TestIsClutter(t *testing.T) {
	want := map[string]bool{
		"dev": false, "dev/null": true, "developer": false,
		"etc": false, "etc/hosts": true, "etc/hosts.allow": false, "etc/passwd": false,
		"usr/share/doc": false, "usr/share/doc/git/README": true, "usr/bin/git": false,
		"var/lib/apt/lists/x": true, "var/lib/dpkg/status": false,
	}
	got := map[string]bool{}
	for path := range want {
		got[path] = IsClutter(path)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
