package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"

	"podlane/cacheclient/store"
	"podlane/vaultauth"
)

// failed is a finding about an error. Hints that are part of its text become
// the finding's.
func failed(err error, otherwise string) finding {
	found, hint := explain(err)
	if hint == "" {
		hint = otherwise
	}
	return finding{status: Failed, found: found, hint: hint}
}

func explain(err error) (found, hint string) {
	found = err.Error()
	var vault *vaultauth.Error
	var bucket *store.Error
	switch {
	case errors.As(err, &vault):
		hint = vault.Hint
	case errors.As(err, &bucket):
		hint = bucket.Hint
	}
	if hint != "" {
		return strings.Replace(found, " ("+hint+")", "", 1), hint
	}
	found, hint, _ = strings.Cut(found, "; hint: ")
	return found, hint
}

// tlsHint says which setting is to blame for a connection to the API server that
// was not made.
func tlsHint(err error) string {
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		verify    *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &authority):
		return "kubernetes.ca_file, or the kubeconfig, must hold the authority that signed the API server's certificate"
	case errors.As(err, &host):
		return "kubernetes.server must be a name in the API server's certificate"
	case errors.As(err, &verify):
		return "check the API server's certificate and this machine's clock"
	}
	return "check kubernetes.server or kubernetes.kubeconfig, and the way there from this machine"
}
