package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

var leaves = []Certificate{
	{Name: "server", User: "kube-apiserver", Hosts: []string{"kubernetes"}, IPs: []string{"10.100.0.1"}},
	{Name: "admin", User: "admin", Group: "system:masters"},
}

func TestCertificatesVerify(t *testing.T) {
	dir := ensure(t, filepath.Join(t.TempDir(), "pki"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(t, dir, "ca.crt"))
	tests := []struct {
		name, host string
		usage      x509.ExtKeyUsage
		ok         bool
	}{
		{"server", "kubernetes", x509.ExtKeyUsageServerAuth, true},
		{"server", "10.100.0.1", x509.ExtKeyUsageServerAuth, true},
		{"server", "elsewhere", x509.ExtKeyUsageServerAuth, false},
		{"admin", "", x509.ExtKeyUsageClientAuth, true},
	}
	for _, test := range tests {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, test.name+".crt"), filepath.Join(dir, test.name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: test.host, KeyUsages: []x509.ExtKeyUsage{test.usage}})
		if (err == nil) != test.ok {
			t.Errorf("%s as %q: %v", test.name, test.host, err)
		}
	}
}

func TestUserAndGroup(t *testing.T) {
	dir := ensure(t, filepath.Join(t.TempDir(), "pki"))
	block, _ := pem.Decode(read(t, dir, "admin.crt"))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got := cert.Subject.String(); got != "CN=admin,O=system:masters" {
		t.Errorf("subject is %s", got)
	}
}

func TestServiceAccountKeysBelongTogether(t *testing.T) {
	dir := ensure(t, filepath.Join(t.TempDir(), "pki"))
	private, _ := pem.Decode(read(t, dir, "sa.key"))
	key, err := x509.ParseECPrivateKey(private.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, _ := pem.Decode(read(t, dir, "sa.pub"))
	want, err := x509.ParsePKIXPublicKey(public.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !key.PublicKey.Equal(want) {
		t.Error("sa.pub is not the public half of sa.key")
	}
}

func TestEnsureKeepsAWholeSetAndReplacesABrokenOne(t *testing.T) {
	dir := ensure(t, filepath.Join(t.TempDir(), "pki"))
	first := string(read(t, dir, "ca.crt"))
	if string(read(t, ensure(t, dir), "ca.crt")) != first {
		t.Error("a whole set was made anew")
	}
	if err := os.Remove(filepath.Join(dir, "admin.key")); err != nil {
		t.Fatal(err)
	}
	if string(read(t, ensure(t, dir), "ca.crt")) == first {
		t.Error("a leaf alone was replaced; the authority's old leaves would stay")
	}
}

func TestKeysAreSecret(t *testing.T) {
	dir := ensure(t, filepath.Join(t.TempDir(), "pki"))
	for _, name := range []string{"ca.key", "sa.key", "admin.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
}

func TestBadAddress(t *testing.T) {
	err := Ensure(filepath.Join(t.TempDir(), "pki"), []Certificate{{Name: "x", IPs: []string{"no address"}}})
	if err == nil {
		t.Error("no error")
	}
}

func ensure(t *testing.T, dir string) string {
	t.Helper()
	if err := Ensure(dir, leaves); err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}
