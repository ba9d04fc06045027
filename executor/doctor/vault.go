package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http/httptrace"
	"net/url"
	"time"

	"podlane/vaultauth"
)

// Names of checks that others need.
const (
	nameVault   = "vault"
	nameIDToken = "id_token"
)

// certificateLimit is how much life a certificate should have left.
const certificateLimit = 14 * 24 * time.Hour

// vault finds out whether Vault can be reached and works.
func (e *examination) vault() []check {
	if !e.s.Vault.Enabled() {
		return []check{{name: nameVault, run: func(context.Context) finding { return e.withoutVault() }}}
	}
	var (
		read  reading
		state *tls.ConnectionState
	)
	return []check{
		{name: nameVault, run: func(ctx context.Context) finding {
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
				TLSHandshakeDone: func(s tls.ConnectionState, err error) {
					if err == nil {
						state = &s
					}
				},
			})
			read.asked = time.Now()
			health, err := e.try.VaultHealth(ctx)
			read.answered, read.theirs = time.Now(), health.Time
			if err != nil {
				return failed(err, "check vault.address, and the way there from this machine")
			}
			return judgeHealth(e.s.Vault.Address, health)
		}},
		{name: "tls of vault", run: func(context.Context) finding { return judgeTLS(e.s.Vault.Address, state, time.Now()) }},
		clockOf(nameVault, nameVault, &read),
	}
}

func (e *examination) withoutVault() finding {
	cluster := "the service account of the pod that this runs in"
	if e.s.Kubernetes.Kubeconfig != "" {
		cluster = "the kubeconfig " + e.s.Kubernetes.Kubeconfig
	}
	return fine("not in the settings: the cluster is reached with %s, and S3 with what the AWS SDK finds (its default chain)", cluster)
}

func judgeHealth(address string, h vaultauth.Health) finding {
	about := fmt.Sprintf("%s at %s", h.Version, address)
	switch {
	case !h.Initialized:
		return fail("vault operator init", "%s is not initialised", about)
	case h.Sealed:
		return fail("vault operator unseal; its log says why it is sealed", "%s is sealed", about)
	case h.Standby:
		return fine("%s, a standby that passes requests on", about)
	}
	return fine("%s, unsealed and active", about)
}

func judgeTLS(address string, state *tls.ConnectionState, now time.Time) finding {
	if u, err := url.Parse(address); err == nil && u.Scheme == "http" {
		return warn("set vault.address to an https address", "none: tokens cross the network in the clear")
	}
	if state == nil || len(state.PeerCertificates) == 0 {
		return finding{status: NotTried} // vault has said why
	}
	ends := state.PeerCertificates[0].NotAfter
	if ends.Sub(now) < certificateLimit {
		return warn("renew it", "the certificate ends at %s", clock(ends))
	}
	return fine("%s, the certificate ends at %s", tls.VersionName(state.Version), clock(ends))
}

// idToken looks at the id_token before Vault does.
func (e *examination) idToken() []check {
	if !e.s.Vault.Enabled() {
		return nil
	}
	return []check{{name: nameIDToken, run: func(context.Context) finding {
		if e.token.IsZero() {
			return notTried("--id-token-file FILE, - for stdin, or --id-token-env NAME; a job has one in "+e.s.Vault.IDToken, "no id_token was given")
		}
		if err := e.try.IDToken(); err != nil {
			return failed(err, "")
		}
		said, err := vaultauth.DecodeIDToken(e.token)
		if err != nil {
			return failed(err, "")
		}
		return judgeIDToken(said, time.Now())
	}}}
}

func judgeIDToken(t vaultauth.IDToken, now time.Time) finding {
	ref := "an unprotected ref"
	if t.RefProtected {
		ref = "a protected ref"
	}
	about := fmt.Sprintf("of project %s, %s, from %s for %q", t.ProjectID, ref, t.Issuer, t.Audience)
	if !t.Expires.IsZero() && !t.Expires.After(now) {
		return fail("take one of a job that runs: it lives as long as the job's timeout", "%s: it ended at %s", about, clock(t.Expires))
	}
	return fine("%s, until %s", about, clock(t.Expires))
}
