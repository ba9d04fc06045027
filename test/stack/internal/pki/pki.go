// Package pki makes the keys and certificates of a test cluster.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime is long because a stack's folder may lie around for years; the keys
// guard nothing but a test cluster on the same machine.
const lifetime = 10 * 365 * 24 * time.Hour

// Certificate is one leaf: good for a server and for a client.
type Certificate struct {
	Name  string // of its files: <name>.crt and <name>.key
	User  string // common name: the Kubernetes user
	Group string // organization: the Kubernetes group; may be empty
	Hosts []string
	IPs   []string
}

// Ensure makes dir hold ca.crt, ca.key, the service accounts' keys sa.key and
// sa.pub, and every leaf. A set that is there in full stays as it is; else all
// of it is made anew.
func Ensure(dir string, leaves []Certificate) error {
	names := []string{"ca.crt", "ca.key", "sa.key", "sa.pub"}
	for _, leaf := range leaves {
		names = append(names, leaf.Name+".crt", leaf.Name+".key")
	}
	complete, err := allThere(dir, names)
	if err != nil || complete {
		return err
	}
	return create(dir, leaves)
}

func allThere(dir string, names []string) (bool, error) {
	for _, name := range names {
		_, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// create fills a folder beside dir and renames it, so that dir is never
// half a set.
func create(dir string, leaves []Certificate) error {
	tmp := dir + ".tmp"
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(dir)); err != nil {
		return err
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return fmt.Errorf("make certificate authority: %w", err)
	}
	if err := ca.write(tmp, "ca"); err != nil {
		return err
	}
	if err := writeSigningKey(tmp); err != nil {
		return fmt.Errorf("make service account key: %w", err)
	}
	for _, leaf := range leaves {
		pair, err := ca.issue(leaf)
		if err != nil {
			return fmt.Errorf("make certificate %s: %w", leaf.Name, err)
		}
		if err := pair.write(tmp, leaf.Name); err != nil {
			return err
		}
	}
	return os.Rename(tmp, dir)
}

// pair is a certificate with its private key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority() (pair, error) {
	return sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "podlane test stack"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}, pair{})
}

func (p pair) issue(leaf Certificate) (pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: leaf.User},
		DNSNames:    leaf.Hosts,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if leaf.Group != "" {
		template.Subject.Organization = []string{leaf.Group}
	}
	for _, text := range leaf.IPs {
		ip := net.ParseIP(text)
		if ip == nil {
			return pair{}, fmt.Errorf("%q is not an IP address", text)
		}
		template.IPAddresses = append(template.IPAddresses, ip)
	}
	return sign(template, p)
}

// sign makes a key for template and has ca sign it; an empty ca means that the
// certificate signs itself.
func sign(template *x509.Certificate, ca pair) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return pair{}, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.Add(lifetime)
	if ca.cert == nil {
		ca = pair{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return pair{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return pair{cert: cert, key: key}, err
}

func (p pair) write(dir, name string) error {
	if err := writePEM(filepath.Join(dir, name+".crt"), "CERTIFICATE", p.cert.Raw, 0o644); err != nil {
		return err
	}
	return writeKey(filepath.Join(dir, name+".key"), p.key)
}

func writeSigningKey(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", public, 0o644); err != nil {
		return err
	}
	return writeKey(filepath.Join(dir, "sa.key"), key)
}

// writeKey uses the key's own format: the API server reads service account
// keys as "EC PRIVATE KEY", not as PKCS #8.
func writeKey(path string, key crypto.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode fs.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
