package store

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
	"podlane/internal/redact"
	"podlane/test/faultproxy"
	"podlane/test/stack/stackenv"
)

// disturbed returns the server behind a proxy.
func disturbed(t *testing.T, s server) (server, *faultproxy.HTTP) {
	t.Helper()
	proxy, err := faultproxy.StartHTTP(t.Context(), "127.0.0.1:0", s.Address)
	must(t, err)
	t.Cleanup(func() { _ = proxy.Close() })
	s.Address = proxy.URL()
	return s, proxy
}

func method(name string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == name }
}

// What goes wrong for a while on the way costs time and nothing else.
func TestTransferSurvivesFaults(t *testing.T) {
	t.Parallel()
	const slowDown = `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code></Error>`
	onAll(t, func(t *testing.T, direct server) {
		for name, fault := range map[string]faultproxy.Fault{
			"throttled":      {Status: http.StatusServiceUnavailable, Body: slowDown, Times: 3},
			"reset":          {Reset: true, Times: 3},
			"broken answers": {Match: method(http.MethodGet), ResetAnswerAfter: 300_000, Times: 4},
			"broken uploads": {Match: method(http.MethodPut), ResetUploadAfter: 300_000, Times: 3},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				bucket, _ := direct.newBucket(t)
				server, proxy := disturbed(t, direct)
				s := open(t, server.config(bucket), store.Fixed(server.credentials()))
				client := newClient(t)
				content := data(partSize+100_000, 3)
				active := proxy.Add(fault)
				upload, parts := send(t, s, client, "k", content)
				outcome, err := s.Complete(t.Context(), upload, parts, store.Once)
				must(t, err)
				if !outcome.Written {
					t.Error("the upload is not ours")
				}
				o, err := s.Head(t.Context(), "k")
				must(t, err)
				got, err := fetch(t, s, client, o, 100, o.Size-100)
				if err != nil || !bytes.Equal(got, content[100:]) {
					t.Errorf("got %d bytes that differ, %v", len(got), err)
				}
				if active.Hits() == 0 {
					t.Error("nothing went wrong: the test proves nothing")
				}
			})
		}
	})
}

// An answer to a completion that got lost must not make the write another's.
func TestCompletionWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, direct server) {
		bucket, _ := direct.newBucket(t)
		server, proxy := disturbed(t, direct)
		s := open(t, server.config(bucket), store.Fixed(server.credentials()))
		upload, parts := send(t, s, newClient(t), "k", data(1000, 4))
		proxy.Add(faultproxy.Fault{Match: method(http.MethodPost), ResetAnswerAfter: 1, Times: 1})
		outcome, err := s.Complete(t.Context(), upload, parts, store.Once)
		if err != nil || !outcome.Written {
			t.Errorf("%+v, %v; want it to be ours", outcome, err)
		}
	})
}

// Where the server has no conditional writes it is looked first, and said so.
func TestWithoutConditionalWrites(t *testing.T) {
	t.Parallel()
	conditional := func(r *http.Request) bool { return r.Header.Get("If-None-Match") != "" }
	onAll(t, func(t *testing.T, direct server) {
		for name, fault := range map[string]faultproxy.Fault{
			"refused": {
				Match: conditional, Status: http.StatusNotImplemented,
				Body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>NotImplemented</Code></Error>`,
			},
			"stripped": {Match: conditional, Strip: "If-None-Match"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				bucket, _ := direct.newBucket(t)
				server, proxy := disturbed(t, direct)
				s := open(t, server.config(bucket), store.Fixed(server.credentials()))
				active := proxy.Add(fault)
				capabilities, err := s.Probe(t.Context(), "")
				if err != nil || capabilities.ConditionalWrites || active.Hits() == 0 {
					t.Errorf("%+v, %v; want no conditional writes", capabilities, err)
				}
				for i, want := range []bool{true, false} {
					upload, parts := send(t, s, newClient(t), "k", data(1000+i, 5))
					outcome, err := s.Complete(t.Context(), upload, parts, store.Once)
					if err != nil || outcome.Written != want || outcome.Warning == "" {
						t.Errorf("write %d: %+v, %v; want ours to be %v, and a warning", i+1, outcome, err, want)
					}
				}
				o, err := s.Head(t.Context(), "k")
				if err != nil || o.Size != 1000 {
					t.Errorf("%+v, %v; want the first write", o, err)
				}
			})
		}
	})
}

// A server that is down is one clear error.
func TestServerIsDown(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, direct server) {
		bucket, _ := direct.newBucket(t)
		server, proxy := disturbed(t, direct)
		config := server.config(bucket)
		config.Attempts = 2
		s := open(t, config, store.Fixed(server.credentials()))
		for name, fault := range map[string]faultproxy.Fault{"500": {Status: 500}, "503": {Status: 503}, "resets": {Reset: true}} {
			active := proxy.Add(fault)
			_, err := s.Head(t.Context(), "k")
			if !errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v; want %v", name, err, store.ErrUnavailable)
			}
			active.Remove()
		}
	})
}

// narrow returns credentials that may do what a session policy says. Only MinIO
// has an STS.
func narrow(t *testing.T, policy string) store.Source {
	t.Helper()
	stack := stackOf(t)
	password, err := os.ReadFile(stack.S3VaultPasswordFile)
	must(t, err)
	client := sts.New(sts.Options{
		BaseEndpoint: aws.String(stack.STSAddress), Region: stackenv.S3Region,
		Credentials: credentials.NewStaticCredentialsProvider(stackenv.S3VaultUser, string(password), ""),
	})
	out, err := client.AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: aws.String("arn:aws:iam::000000000000:role/any"), RoleSessionName: aws.String("test"), Policy: &policy,
	})
	must(t, err)
	return store.Fixed(store.Credentials{
		AccessKey: aws.ToString(out.Credentials.AccessKeyId), SecretKey: redact.New(aws.ToString(out.Credentials.SecretAccessKey)),
		SessionToken: redact.New(aws.ToString(out.Credentials.SessionToken)), Expires: aws.ToTime(out.Credentials.Expiration),
	})
}

// S3 answers 403 to who asks for what isn't there and may not list. That is a
// miss, and it is said what that may hide.
func TestMissThatIsForbidden(t *testing.T) {
	t.Parallel()
	onAll(t, func(t *testing.T, direct server) {
		bucket, _ := direct.newBucket(t)
		server, proxy := disturbed(t, direct)
		s := open(t, server.config(bucket), store.Fixed(server.credentials()))
		proxy.Add(faultproxy.Fault{Status: http.StatusForbidden, Body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>`})
		_, err := s.Head(t.Context(), "k")
		if !errors.Is(err, store.ErrNotFound) || !store.NotListed(err) || !strings.Contains(err.Error(), "s3:ListBucket") {
			t.Errorf("%v; want not found, or not to be told", err)
		}
	})
}

// Credentials for one scope reach no other, and list nothing.
func TestWithoutListing(t *testing.T) {
	t.Parallel()
	server := minio(t)
	bucket, all := server.newBucket(t)
	space, err := key.NewSpace("", "0a", 1)
	must(t, err)
	own := space.Dir(key.Unprotected)
	s := open(t, server.config(bucket), narrow(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::`+bucket+"/"+own+`*"}]}`))

	if _, err := s.Head(t.Context(), own+"nothing"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("looking up: %v; want not found", err)
	}
	for _, err := range s.List(t.Context(), own) {
		if !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "s3:ListBucket") {
			t.Errorf("listing: %v; want it denied, and why", err)
		}
	}
	fallback, err := key.Fallback("node-*")
	must(t, err)
	_, notes, err := s.Find(t.Context(), space, key.Candidates(key.Unprotected, "node-1", somePaths, []key.Want{fallback}), nil)
	if !errors.Is(err, store.ErrNotFound) || len(notes) == 0 || !strings.Contains(strings.Join(notes, "\n"), "node-* can't be looked up") {
		t.Errorf("finding: %v with notes %q", err, notes)
	}

	protected := space.Object(key.Protected, "node-1", somePaths)
	_, err = all.Put(t.Context(), protected, []byte("trusted"), store.Meta{}, store.Once)
	must(t, err)
	for _, mode := range []store.Mode{store.Once, store.Replace} {
		if _, err := s.Put(t.Context(), protected, []byte("evil"), store.Meta{}, mode); !errors.Is(err, store.ErrDenied) {
			t.Errorf("writing into the other scope: %v; want it denied", err)
		}
	}
	if err := s.Delete(t.Context(), protected); !errors.Is(err, store.ErrDenied) {
		t.Errorf("deleting in the other scope: %v; want it denied", err)
	}
	signed, err := s.SignRead(t.Context(), store.Object{Name: own + "x", ETag: `"e"`}, 100*time.Hour)
	must(t, err)
	if left := time.Until(signed.Expires); left > 24*time.Hour {
		t.Errorf("a signature lasts %v, longer than its credentials", left)
	}
}
