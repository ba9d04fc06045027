package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/test/bed"
	"podlane/test/gitlabsim"
	"podlane/test/stack/vaultserver"
)

// A job that outlives the tokens it began with, over both kinds of streams: all
// that Vault gives lives for seconds, and in the middle everything is revoked.
// The stream of the script stays, and its log comes whole.
func TestVaultTokensAndStreams(t *testing.T) {
	t.Parallel()
	needsStack(t)
	for _, kind := range []string{"websocket", "spdy"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			settings := bed.Settings{"vault": {"address": quoted(shorten(t, shared.Stack.VaultAddress, 6))}}
			var proxy *spdyOnly
			if kind == "spdy" {
				proxy = newSPDYOnly(t, shared)
				settings["kubernetes"] = map[string]string{"server": quoted(proxy.URL), "ca_file": quoted(proxy.caFile)}
			}
			b := newVaultBed(t, nil, settings, "--token-ttl", "4s", "--token-max-ttl", "8s")
			end := b.Barrier()
			job := enqueue(t, b, gitlabsim.JobSpec{Script: []string{
				"{ " + end.Command + "; touch /tmp/over; } & n=0; while [ ! -e /tmp/over ]; do n=$((n+1)); echo line $n; sleep 0.2; done; echo there were $n lines", "exit 7",
			}})
			if err := end.Reached(t.Context()); err != nil {
				t.Fatal(err)
			}
			logins, tokens := renewals(t, b, 0, 0)
			logins, tokens = renewals(t, b, logins+2, tokens+2)
			if err := b.Vault.API(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/auth/"+b.Vault.Mounts.JWT+"/login", nil, nil); err != nil {
				t.Fatal(err)
			}
			renewals(t, b, logins+1, tokens+2)
			end.Open()
			o := finish(t, job)
			o.failed(t, 7)
			o.doesNotLog(t, "lost the connection")
			wholeCount(t, o.trace)
			if proxy != nil && (proxy.refused.Load() == 0 || proxy.passed.Load() == 0) {
				t.Errorf("%d WebSockets were refused and %d SPDY streams opened: the test proves nothing", proxy.refused.Load(), proxy.passed.Load())
			}
		})
	}
}

// renewals waits until podlane has logged in and got a token for the cluster so
// many times, and returns how often it was.
func renewals(t *testing.T, b *bed.Bed, wantLogins, wantTokens int) (logins, tokens int) {
	t.Helper()
	eventually(t, func() bool {
		logins, tokens = 0, 0
		for _, path := range requests(t, b) {
			switch path {
			case "auth/jwt/login":
				logins++
			case "kubernetes/creds/podlane":
				tokens++
			}
		}
		return logins >= wantLogins && tokens >= wantTokens
	})
	return logins, tokens
}

// wholeCount checks that a log counts from 1 to its last line without a gap.
func wholeCount(t *testing.T, trace string) {
	t.Helper()
	var got, want []string
	for line := range strings.Lines(trace) {
		line = strings.TrimRight(line, "\r\n")
		if _, ok := strings.CutPrefix(line, "line "); ok {
			got = append(got, line)
		}
		if count, ok := strings.CutPrefix(line, "there were "); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(count, " lines"))
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				want = append(want, fmt.Sprintf("line %d", i+1))
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
		t.Errorf("of %d lines, the log lacks some or has others (-want +got):\n%s", len(want), diff)
	}
}

// spdyOnly is a proxy in front of the API server that knows no WebSocket.
type spdyOnly struct {
	*httptest.Server
	caFile          string
	refused, passed atomic.Int64
}

func newSPDYOnly(t *testing.T, b *bed.Bed) *spdyOnly {
	t.Helper()
	target, err := url.Parse(b.Stack.APIServerURL())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(b.Stack.KubeCAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	s := &spdyOnly{caFile: filepath.Join(t.TempDir(), "ca.crt")}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.ToLower(r.Header.Get("Upgrade")) {
		case "websocket":
			s.refused.Add(1)
			http.Error(w, "no such protocol", http.StatusBadRequest)
			return
		case "spdy/3.1":
			s.passed.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(s.caFile, own, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// shorten is a way to Vault on which tokens for the cluster seem to live for
// some seconds: Kubernetes gives none for less than ten minutes.
func shorten(t *testing.T, address string, seconds int) string {
	t.Helper()
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(resp *http.Response) error {
			if !strings.Contains(resp.Request.URL.Path, "/creds/") || resp.StatusCode != http.StatusOK {
				return nil
			}
			var answer map[string]any
			if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
				return err
			}
			resp.Body.Close()
			answer["lease_duration"] = seconds
			text, err := json.Marshal(answer)
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
			resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
			return err
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	return server.URL
}

// GitLab changes its signing key without notice: Vault fetches the new one.
func TestVaultAfterARotationOfKeys(t *testing.T) {
	t.Parallel()
	b := newVaultBed(t, nil, nil)
	runOn(t, b, gitlabsim.JobSpec{Script: []string{"echo one"}}).succeeded(t)
	if err := b.GitLab.RotateKeys(false); err != nil {
		t.Fatal(err)
	}
	runOn(t, b, gitlabsim.JobSpec{Script: []string{"echo two"}}).succeeded(t)
}

// A Vault that is sealed, or not there: before a job, in the middle of one for a
// while, and in the middle of one for good.
func TestVaultThatIsAway(t *testing.T) {
	t.Parallel()
	needsStack(t)
	own, err := vaultserver.New(t.Context(), shared.Stack, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = own.Close() })
	b := newVaultBed(t, own, bed.Settings{"vault": {"retry_budget": quoted("0s")}})
	p := project(t, b, nil)
	ctx := t.Context()
	t.Cleanup(func() {
		// The bed takes its things out of Vault in the end.
		if err := errors.Join(own.Stop(), own.Start(context.WithoutCancel(ctx))); err != nil {
			t.Error(err)
		}
	})

	if err := own.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	sealed := runOn(t, b, gitlabsim.JobSpec{Project: p, Script: []string{"echo started"}})
	sealed.systemFailed(t, "vault is sealed")
	sealed.doesNotLog(t, "starting pod")
	if out, code := (doctor{bed: b, project: p}).run(t); code != 1 || !strings.Contains(out, " is sealed\n  hint: vault operator unseal") {
		t.Errorf("doctor ends with %d: %s", code, out)
	}
	if err := own.Unseal(ctx); err != nil {
		t.Fatal(err)
	}

	// Two jobs are in the middle of their scripts when it goes.
	short, awhile := inTheMiddle(t, b, p)
	long, forGood := inTheMiddle(t, b, p)
	if err := own.Stop(); err != nil {
		t.Fatal(err)
	}
	back := time.NewTimer(20 * time.Second)
	// For one it is away for good: it has what it needs, and its pod is deleted.
	long.Open()
	finish(t, forGood).succeeded(t, "\nit has ended", "\nafter it")
	gone := runOn(t, b, gitlabsim.JobSpec{Project: p, Script: []string{"echo started"}})
	gone.systemFailed(t, "log in to vault with role", "connection refused")
	// For the other it is back before the job ends.
	<-back.C
	if err := own.Start(ctx); err != nil {
		t.Fatal(err)
	}
	short.Open()
	finish(t, awhile).succeeded(t, "\nit has ended", "\nafter it")
}

// inTheMiddle starts a job whose script goes on when its barrier is opened.
func inTheMiddle(t *testing.T, b *bed.Bed, p *gitlabsim.Project) (*bed.Barrier, *gitlabsim.Job) {
	t.Helper()
	gate := b.Barrier()
	job := enqueue(t, b, gitlabsim.JobSpec{Project: p, Script: []string{gate.Command, "echo it has ended"}, AfterScript: []string{"echo after it"}})
	if err := gate.Reached(t.Context()); err != nil {
		t.Fatal(err)
	}
	return gate, job
}
