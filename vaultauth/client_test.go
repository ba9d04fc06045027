package vaultauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// Everything that the SDK reads from the environment, with values that would
// lead elsewhere.
func TestEnvironmentHasNoSay(t *testing.T) {
	elsewhere := httptest.NewServer(newPlainWire(t))
	defer elsewhere.Close()
	dir := t.TempDir()
	authority := newAuthority(t)
	ca := filepath.Join(dir, "ca.pem")
	authority.write(t, ca)
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	authority.issue(t, "someone", cert, key)
	for name, value := range map[string]string{
		"VAULT_ADDR":                   elsewhere.URL,
		"VAULT_AGENT_ADDR":             elsewhere.URL,
		"VAULT_TOKEN":                  "hvs.of-someone-else",
		"VAULT_NAMESPACE":              "elsewhere",
		"VAULT_HEADERS":                `{"X-Evil":"1","User-Agent":"evil"}`,
		"VAULT_WRAP_TTL":               "60s",
		"VAULT_RATE_LIMIT":             "0.000001:1",
		"VAULT_PROXY_ADDR":             elsewhere.URL,
		"VAULT_HTTP_PROXY":             elsewhere.URL,
		"HTTP_PROXY":                   elsewhere.URL,
		"VAULT_CLIENT_TIMEOUT":         "1",
		"VAULT_MAX_RETRIES":            "7",
		"VAULT_SRV_LOOKUP":             "true",
		"VAULT_SKIP_VERIFY":            "true",
		"VAULT_TLS_SERVER_NAME":        "elsewhere",
		"VAULT_CACERT":                 ca,
		"VAULT_CLIENT_CERT":            cert,
		"VAULT_CLIENT_KEY":             key,
		"VAULT_DISABLE_REDIRECTS":      "false",
		"VAULT_MFA":                    "secret",
		"VAULT_DETECT_DEADLOCKS":       "1",
		"VAULT_CACERT_BYTES":           "",
		"VAULT_CAPATH":                 "",
		"VAULT_REDIRECT_ADDR":          elsewhere.URL,
		"BAO_ADDR":                     elsewhere.URL,
		"BAO_TOKEN":                    "s.of-someone-else",
		"VAULT_RECOVER_SNAPSHOT_ID":    "1",
		"VAULT_RECOVER_SOURCE_PATH":    "x",
		api.EnvVaultInsecure + "_MORE": "1",
	} {
		t.Setenv(name, value)
	}
	w := newWire(t)
	w.fault = func(path string, n int) fault {
		if path == login && n == 0 {
			return fault{status: 307}
		}
		return fault{}
	}
	j := newJob(t, w, nil)
	_, err := j.stage().Login(t.Context())
	checkError(t, err, Misconfigured, "redirect")
	j.kube(j.stage())
	if got, want := w.requests(), []string{login, login, creds}; !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
	for i, h := range w.head {
		for _, name := range []string{"X-Evil", "X-Vault-Namespace", "X-Vault-Wrap-Ttl", "X-Vault-Mfa", "X-Vault-Recover-Snapshot-Id"} {
			if h.Get(name) != "" {
				t.Errorf("request %d has the header %s: %s", i, name, h.Get(name))
			}
		}
		token := ""
		if i == 2 {
			token = "hvs.token-number-1"
		}
		if h.Get("X-Vault-Token") != token || h.Get("User-Agent") != "podlane/test" || h.Get("X-Vault-Request") != "true" {
			t.Errorf("request %d has the headers %v", i, h)
		}
	}

	// Nor does VAULT_SKIP_VERIFY open a connection that nobody vouches for.
	secure := newPlainWire(t)
	secure.Server = httptest.NewUnstartedServer(secure)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	j = newJob(t, secure, nil)
	_, err = j.stage().Login(t.Context())
	checkError(t, err, Misconfigured, "vault.ca_file")
}

// What the SDK can't even read stops it. It must not go unsaid.
func TestUnreadableEnvironment(t *testing.T) {
	t.Setenv("VAULT_MAX_RETRIES", "many")
	_, err := New(Config{Address: "https://vault.example.com"}, nil)
	checkError(t, err, Misconfigured, "unset the VAULT_ variables")
}

func TestNamespace(t *testing.T) {
	t.Parallel()
	j := newJob(t, newWire(t), func(c *Config) { c.Namespace = "team/ci" })
	s := j.stage()
	j.kube(s)
	if err := s.Revoke(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(j.wire.head) != 3 {
		t.Errorf("%d requests, want 3", len(j.wire.head))
	}
	for i, h := range j.wire.head {
		if got := h.Get("X-Vault-Namespace"); got != "team/ci" {
			t.Errorf("request %d has the namespace %q", i, got)
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "vault.example.com:8200", "unix:///run/vault.sock", "https://", "://"} {
		_, err := New(Config{Address: address}, nil)
		checkError(t, err, Misconfigured, "https://vault.example.com:8200")
	}
	// A path before /v1 is a proxy's.
	j := newJob(t, newWire(t), func(c *Config) { c.Address += "/behind/proxy/" })
	_, err := j.stage().Login(t.Context())
	if err == nil {
		t.Fatal("the server knows no such path")
	}
	if got := j.wire.requests(); !slices.Equal(got, []string{"/behind/proxy/v1/" + login}) {
		t.Errorf("asked for %v", got)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	ours, other := newAuthority(t), newAuthority(t)
	ours.write(t, file("ca.pem"))
	other.write(t, file("other.pem"))
	ours.issue(t, "client", file("client.pem"), file("client.key"))
	other.issue(t, "stranger", file("stranger.pem"), file("stranger.key"))
	if err := os.WriteFile(file("empty.pem"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newPlainWire(t)
	w.Server = httptest.NewUnstartedServer(w)
	w.TLS = &tls.Config{
		Certificates: []tls.Certificate{ours.issue(t, "vault.test", file("vault.pem"), file("vault.key"))},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: ours.pool(),
	}
	w.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.StartTLS()
	t.Cleanup(w.Close)
	plain := newWire(t)
	good := Config{
		Address: w.URL, CAFile: file("ca.pem"), ServerName: "vault.test",
		CertFile: file("client.pem"), KeyFile: file("client.key"), RetryBudget: time.Minute,
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string // of an error
	}{
		{"all is well", func(*Config) {}, nil},
		{"no authority", func(c *Config) { c.CAFile = "" }, []string{"vault.ca_file"}},
		{"another authority", func(c *Config) { c.CAFile = file("other.pem") }, []string{"vault.ca_file"}},
		{"not the address's host", func(c *Config) { c.ServerName = "" }, []string{"vault.server_name"}},
		{"another host", func(c *Config) { c.ServerName = "vault.example.com" }, []string{"vault.server_name"}},
		{"no client certificate", func(c *Config) { c.CertFile, c.KeyFile = "", "" }, []string{"vault.cert_file"}},
		{"a stranger's client certificate", func(c *Config) { c.CertFile, c.KeyFile = file("stranger.pem"), file("stranger.key") }, []string{"vault.cert_file"}},
		{"no TLS there", func(c *Config) { c.Address = "https" + plain.URL[len("http"):] }, []string{"no TLS is spoken"}},
		{"no such file", func(c *Config) { c.CAFile = file("none.pem") }, []string{"none.pem", "no such file"}},
		{"no certificate in it", func(c *Config) { c.CAFile = file("empty.pem") }, []string{"empty.pem has no PEM certificate"}},
		{"half a pair", func(c *Config) { c.KeyFile = "" }, []string{"found only one"}},
		{"not a pair", func(c *Config) { c.KeyFile = file("stranger.key") }, []string{"client.pem"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := good
			tt.change(&config)
			client, err := New(config, nil)
			if err == nil {
				_, err = Open(Options{Client: client, Role: "ci", IDToken: jwt(t, map[string]any{"exp": time.Now().Add(time.Hour).Unix()})}).Login(t.Context())
			}
			if tt.want == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			checkError(t, err, Misconfigured, tt.want...)
		})
	}
}

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) write(t *testing.T, path string) {
	t.Helper()
	writePEM(t, path, "CERTIFICATE", a.cert.Raw)
}

// issue makes a certificate for a name, for servers and clients.
func (a *authority) issue(t *testing.T, name, certFile, keyFile string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, certFile, "CERTIFICATE", der)
	writePEM(t, keyFile, "PRIVATE KEY", keyDER)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
