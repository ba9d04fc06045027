package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/redact"
	"podlane/podagent"
)

func TestGrantsAsked(t *testing.T) {
	s := settings.Default()
	s.Grants = []settings.Grant{{Name: "a"}, {Name: "b"}, {Name: "x", Variable: "V"}, {Name: "y", Variable: "V"}}
	job := func(asked string) *gitlab.Job {
		return &gitlab.Job{Variables: gitlab.Variables{{Key: "PODLANE_GRANTS", Value: asked}}}
	}
	if got, err := grantsAsked(job("b, a"), &s); err != nil || len(got) != 2 || got[0].Name != "b" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err := grantsAsked(job("c"), &s)
	if err == nil || err.Error() != `PODLANE_GRANTS asks for "c", which the settings of podlane do not have; hint: it has a, b, x, y` {
		t.Errorf("got %v", err)
	}
	_, err = grantsAsked(job("x y"), &s)
	if err == nil || err.Error() != "PODLANE_GRANTS asks for x and y, which both set V: a job can have one of them" {
		t.Errorf("got %v", err)
	}
}

func TestMayHave(t *testing.T) {
	facts := Facts{ProjectID: "42", Scope: ScopeUnprotected, Environment: "review/7", PipelineSource: "merge_request_event"}
	tests := []struct {
		name  string
		grant settings.Grant
		want  string
	}{
		{"no conditions", settings.Grant{}, ""},
		{"all fulfilled", settings.Grant{Projects: []int64{1, 42}, Environments: []string{"staging", "review/*"}, PipelineSources: []string{"merge_request_event"}}, ""},
		{"project", settings.Grant{Projects: []int64{4}}, `the claim project_id is "42", expected one of the projects that it is for`},
		{"protected", settings.Grant{Protected: true}, `the claim ref_protected is "false", expected true`},
		{"environment", settings.Grant{Environments: []string{"production", "staging/*"}}, `the claim environment is "review/7", expected one that matches production or staging/*`},
		{"deeper environment", settings.Grant{Environments: []string{"*"}}, `the claim environment is "review/7", expected one that matches *`},
		{"source", settings.Grant{PipelineSources: []string{"push", "schedule"}}, `the claim pipeline_source is "merge_request_event", expected push or schedule`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.grant.Name = "g"
			err := mayHave(tt.grant, facts)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if want := "the grant g is not for this job: " + tt.want; err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func TestFilledGrant(t *testing.T) {
	g := settings.Grant{Name: "g", AuthRole: "r-{scope}", Namespace: "ns-{project_id}", Path: "ci/{project_id}/x"}
	got, err := filledGrant(g, Facts{ProjectID: "42", Scope: ScopeProtected})
	if err != nil || got.AuthRole != "r-protected" || got.Namespace != "ns-42" || got.WorkNamespace != "ns-42" || got.Path != "ci/42/x" {
		t.Errorf("got %+v, %v", got, err)
	}
	g.WorkNamespace = "{environment}"
	if _, err := filledGrant(g, Facts{ProjectID: "42", Scope: ScopeProtected}); err == nil || !strings.Contains(err.Error(), "this job has no such fact") {
		t.Errorf("got %v", err)
	}
}

func TestDelivery(t *testing.T) {
	ends := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	cluster := pod.Cluster{Server: "https://k8s", CA: []byte("ca")}
	d, err := delivery([]granted{
		{grant: settings.Grant{Name: "one", Kind: "kubeconfig", WorkNamespace: "review-7"}, cluster: cluster, token: redact.New("tok-1")},
		{grant: settings.Grant{Name: "two", Kind: "kubeconfig", WorkNamespace: "other"}, token: redact.New("tok-2")},
		{grant: settings.Grant{Name: "s3", Kind: "aws", Region: "eu"}, accessKey: redact.New("AK"), secretKey: redact.New("SK"), sessionToken: redact.New("ST"), expires: ends},
		{grant: settings.Grant{Name: "db", Kind: "kv", Field: "password", Variable: "DB"}, value: redact.New("pw")},
		{grant: settings.Grant{Name: "key", Kind: "kv", Field: "pem", Variable: "KEY", File: true}, value: redact.New("a\nb\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantEnv := map[string]string{
		"KUBECONFIG":      "/podlane/grants/one/kubeconfig:/podlane/grants/two/kubeconfig",
		"AWS_CONFIG_FILE": "/podlane/grants/aws/config", "AWS_SHARED_CREDENTIALS_FILE": "/podlane/grants/aws/credentials",
		"DB": "pw", "KEY": "/podlane/grants/key/pem",
	}
	if diff := cmp.Diff(wantEnv, d.Env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	var config struct {
		Current  string `json:"current-context"`
		Clusters []struct{ Cluster map[string]string }
		Users    []struct{ User map[string]string }
		Contexts []struct{ Context map[string]string }
	}
	if err := json.Unmarshal([]byte(d.Files["one/kubeconfig"]), &config); err != nil {
		t.Fatal(err)
	}
	if config.Current != "one" || config.Clusters[0].Cluster["server"] != "https://k8s" || config.Clusters[0].Cluster["certificate-authority-data"] != "Y2E=" ||
		config.Users[0].User["tokenFile"] != "/podlane/grants/one/token" || config.Contexts[0].Context["namespace"] != "review-7" {
		t.Errorf("the kubeconfig is %s", d.Files["one/kubeconfig"])
	}
	if strings.Contains(d.Files["one/kubeconfig"], "tok-1") {
		t.Error("the token stands in the kubeconfig, where it cannot be renewed")
	}
	delete(d.Files, "one/kubeconfig")
	delete(d.Files, "two/kubeconfig")
	wantFiles := map[string]string{
		"one/token": "tok-1", "two/token": "tok-2",
		"s3/credentials.json": `{"AccessKeyId":"AK","Expiration":"2030-01-02T03:04:05Z","SecretAccessKey":"SK","SessionToken":"ST","Version":1}`,
		"aws/config":          "[default]\ncredential_process = /podlane/shared/bin/podlane-helper aws-credentials s3\nregion = eu\n\n[profile s3]\ncredential_process = /podlane/shared/bin/podlane-helper aws-credentials s3\nregion = eu\n",
		"aws/credentials":     "",
		"key/pem":             "a\nb\n",
	}
	if diff := cmp.Diff(wantFiles, d.Files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// One that can't be renewed does not keep the others from it, however long Vault
// takes to say so.
func TestGrantsAreRenewedEachForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 10 * time.Minute
		var mu sync.Mutex
		asked := map[string]int{}
		var warnings, sent []string
		g := &granting{
			grants: []settings.Grant{{Name: "good"}, {Name: "refused"}, {Name: "stuck"}, {Name: "kept"}},
			get: func(ctx context.Context, grant settings.Grant) (granted, time.Time, error) {
				mu.Lock()
				asked[grant.Name]++
				n := asked[grant.Name]
				mu.Unlock()
				switch {
				case n > 1 && grant.Name == "refused":
					return granted{}, time.Time{}, errors.New("permission denied")
				case n > 1 && grant.Name == "stuck":
					<-ctx.Done()
					return granted{}, time.Time{}, ctx.Err()
				case n > 1 && grant.Name == "kept": // Vault is away, and the old one does
					return granted{grant: grant, value: redact.New("kept 1")}, time.Now().Add(-time.Minute), nil
				}
				return granted{grant: grant, value: redact.New(fmt.Sprint(grant.Name, " ", n))}, time.Now().Add(life), nil
			},
			send: func(_ context.Context, have []granted) error {
				var line string
				for _, c := range have {
					line += c.value.Reveal() + ", "
				}
				sent = append(sent, line)
				return nil
			},
			warnf: func(format string, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				warnings = append(warnings, fmt.Sprintf(format, args...))
			},
		}
		ctx, cancel := context.WithCancel(t.Context())
		due, err := g.deliver(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go g.keepFresh(ctx, due)
		time.Sleep(2*life + time.Minute)
		cancel()
		synctest.Wait()
		if sent[0] != "good 1, refused 1, stuck 1, kept 1, " || sent[len(sent)-1] != "good 3, refused 1, stuck 1, kept 1, " {
			t.Errorf("handed over first %q and last %q", sent[0], sent[len(sent)-1])
		}
		if diff := cmp.Diff([]string{"the grant refused is not renewed yet: permission denied"}, warnings); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	})
}

// The pod mounts memory where podlane-helper looks for it.
func TestGrantsAreWhereTheyAreLookedFor(t *testing.T) {
	s := settings.Default()
	s.Job.Image = "x"
	m, err := pod.Build(&gitlab.Job{Variables: gitlab.Variables{{Key: "PODLANE_GRANTS", Value: "a"}}}, &s, "1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Pod.Spec.Containers {
		mounted := false
		for _, mount := range c.VolumeMounts {
			mounted = mounted || mount.MountPath == podagent.GrantsDir()
		}
		if mounted != (c.Name == pod.BuildContainer) {
			t.Errorf("container %s: mounted is %v", c.Name, mounted)
		}
	}
}
