package vaultauth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/hashicorp/vault/api"

	"podlane/internal/joblog"
)

// Kind says what is to be done about an error.
type Kind int

const (
	// Unknown is everything that is not understood: an operator's business.
	Unknown Kind = iota
	// Denied is a no to this job: a claim of its id_token that a role does not
	// accept, or a policy that does not allow what was asked for.
	Denied
	// Expired means that the tokens at hand have ended.
	Expired
	// Unavailable means that Vault can't be reached, is sealed, a standby, or
	// overloaded, and was so for the whole retry budget.
	Unavailable
	// Misconfigured is a role, mount, address, key, clock or certificate that does
	// not fit: an operator's business.
	Misconfigured
)

func (k Kind) String() string {
	return [...]string{"unknown", "denied", "expired", "unavailable", "misconfigured"}[k]
}

// Error is what went wrong between us and Vault. No field holds a secret.
type Error struct {
	Kind Kind
	// Op is what was wanted: "log in to vault with role podlane".
	Op string
	// Status is the HTTP status of Vault's answer, or zero if there is none.
	Status int
	// Detail is the reason in Vault's words, or the network's.
	Detail string
	// Claim is the claim of the id_token that Vault's words are about, if any.
	Claim string
	// Hint is what can be done about it; may be empty.
	Hint string
	Err  error

	retry bool // the same request may work in a moment
	lost  bool // Vault may have acted on it, and its answer is lost
}

func (e *Error) Error() string {
	s := e.Op + ": " + e.Detail
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause, where there is one in Go.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the first [Error] in err's chain.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Unknown
}

func misconfigured(op, format string, args ...any) *Error {
	return &Error{Kind: Misconfigured, Op: op, Detail: fmt.Sprintf(format, args...)}
}

// refusal is the error of an answer with a status that is not 2xx.
func refusal(status int, words []string, raw bool) *Error {
	e := &Error{Status: status, Detail: detail(status, words, raw)}
	switch {
	case status/100 == 3:
		e.Kind = Misconfigured
		e.Detail = fmt.Sprintf("answered with a redirect (status %d)", status)
		e.Hint = "set vault.address to the address that is redirected to: redirects are not followed with a token in hand"
	case status == http.StatusBadRequest:
		for _, known := range refusals {
			if m := known.words.FindStringSubmatch(e.Detail); m != nil {
				e.Kind, e.Hint, e.Claim = known.kind, known.hint, known.claim
				if e.Claim == "" {
					e.Claim = strings.Join(m[1:], "")
				}
				break
			}
		}
	case status == http.StatusForbidden:
		e.Kind = Denied
		e.Hint = "the policies of the JWT role do not allow it, or the token has been revoked"
	case status == http.StatusNotFound:
		e.Kind = Misconfigured
		e.Hint = "check the mount and the name in podlane.toml"
	case status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented:
		e.Kind = Misconfigured
		e.Hint = "check that the mount is of the right kind"
	case status == http.StatusPreconditionFailed, status == http.StatusTooManyRequests, status >= 500, status == 472, status == 473:
		e.Kind, e.retry = Unavailable, true
		// Of these, only a proxy that gave up waiting leaves open what Vault did:
		// Vault's own errors, which are JSON, come instead of a lease.
		e.lost = status == http.StatusGatewayTimeout || (status == http.StatusBadGateway && raw)
		switch {
		case strings.Contains(strings.ToLower(e.Detail), "sealed"):
			e.Detail = "vault is sealed"
		case strings.Contains(strings.ToLower(e.Detail), "standby"):
			e.Hint = "vault.address leads to a standby that has no active node to forward to"
		case status == http.StatusTooManyRequests:
			e.Hint = "a rate limit or lease count quota of Vault"
		}
	}
	return e
}

// refusals are Vault's words for a 400, in the order in which they are looked
// for, from vault-plugin-auth-jwt (path_login.go, claims.go), cap/jwt, and the
// Kubernetes and AWS engines.
var refusals = []struct {
	words *regexp.Regexp
	kind  Kind
	claim string // or the first group
	hint  string
}{
	{regexp.MustCompile(`\(exp\) claim: token is expired`), Expired, "exp", "the id_token lives as long as the job's timeout; compare the clocks if it is younger than that"},
	{regexp.MustCompile(`\((nbf|iat)\) claim`), Misconfigured, "", "compare the clocks of GitLab and Vault"},
	{regexp.MustCompile(`\(iss\) claim`), Misconfigured, "iss", "bound_issuer of the auth method names another GitLab"},
	{regexp.MustCompile(`no audiences bound to the role`), Misconfigured, "aud", "set bound_audiences on the role"},
	{regexp.MustCompile(`\(aud\) claim|audience claim`), Denied, "aud", "aud under id_tokens in .gitlab-ci.yml must be one of bound_audiences of the role"},
	{regexp.MustCompile(`\((\w+)\) claim`), Denied, "", "the role is for another value"},
	{regexp.MustCompile(`claim "([^"]+)" is missing`), Denied, "", "bound_claims of the role ask for it"},
	{regexp.MustCompile(`claim "([^"]+)" does not match`), Denied, "", "bound_claims of the role do not allow this job"},
	{regexp.MustCompile(`claim "([^"]+)" not found in token`), Misconfigured, "", "user_claim of the role is one that this GitLab does not send"},
	{regexp.MustCompile(`claim "([^"]+)" could not be converted|error converting claim '([^']+)'`), Misconfigured, "", "the role uses a claim as text that is none"},
	{regexp.MustCompile(`verifying token signature|no known key`), Misconfigured, "", "the token was signed by another GitLab than the auth method trusts"},
	{regexp.MustCompile(`\(alg\) header`), Misconfigured, "", "the auth method does not accept the algorithm that GitLab signs with"},
	{regexp.MustCompile(`(?i)role .*(?:could not be found|not found|does not exist)|unknown role|missing role`), Misconfigured, "", "check the role's name in podlane.toml and that it exists in Vault"},
	{regexp.MustCompile(`oidc role_type`), Misconfigured, "", `the role must have role_type="jwt"`},
	{regexp.MustCompile(`could not load configuration|error configuring token validator`), Misconfigured, "", "the auth method is not set up, or can't read GitLab's keys"},
	{regexp.MustCompile(`kubernetes_namespace`), Denied, "", "allowed_kubernetes_namespaces of the engine's role do not include it"},
	{regexp.MustCompile(`(?i)unsupported path|unknown backend`), Misconfigured, "", "check the mount in podlane.toml"},
}

// detail is what Vault said, in one line.
func detail(status int, words []string, raw bool) string {
	text := strings.Join(words, ", ")
	if raw && (strings.Contains(text, "<html") || len(text) > 500) {
		text = "" // a proxy's page
	}
	// go-multierror writes a list over several lines.
	text = listHead.ReplaceAllString(text, "")
	text = listItem.ReplaceAllString(text, ", ")
	text = strings.Trim(joblog.OneLine(text), " ,")
	if text == "" {
		text = strings.ToLower(http.StatusText(status))
	}
	return fmt.Sprintf("%s (status %d)", text, status)
}

var (
	listHead = regexp.MustCompile(`\d+ errors? occurred:\s*\*\s*`)
	listItem = regexp.MustCompile(`\s*\n\s*\*\s*`)
)

// failure is the error of a request that got no answer, or half of one.
func failure(err error) *Error {
	e := &Error{Kind: Unavailable, Err: err, Detail: networkReason(err), retry: true}
	var sent *sentError
	e.lost = errors.As(err, &sent)
	var (
		verification *tls.CertificateVerificationError
		header       tls.RecordHeaderError
		operation    *net.OpError
		host         x509.HostnameError
		authority    x509.UnknownAuthorityError
		invalid      x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &authority):
		e.Hint = "vault.ca_file must hold the authority that signed Vault's certificate"
	case errors.As(err, &host):
		e.Hint = "set vault.server_name to a name in Vault's certificate"
	case errors.As(err, &header):
		e.Hint = "vault.address starts with https, and no TLS is spoken there"
	case errors.As(err, &operation) && operation.Op == "remote error": // crypto/tls for an alert of the other side
		e.Hint = "Vault, or a proxy before it, wants a client certificate: set vault.cert_file and vault.key_file"
	case errors.As(err, &verification), errors.As(err, &invalid):
	case strings.Contains(e.Detail, "server gave HTTP response to HTTPS client"):
		e.Hint = "vault.address starts with https, and no TLS is spoken there"
	default:
		return e
	}
	e.Kind, e.retry, e.lost = Misconfigured, false, false
	return e
}

// networkReason leaves out what Op says already: method and URL.
func networkReason(err error) string {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return "no answer in time"
	}
	return joblog.OneLine(err.Error())
}

// asRefusal finds the SDK's error of an answer.
func asRefusal(err error) (*Error, bool) {
	var e *api.ResponseError
	if !errors.As(err, &e) {
		return nil, false
	}
	return refusal(e.StatusCode, e.Errors, e.RawError), true
}
