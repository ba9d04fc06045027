package pod

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testJob() *gitlab.Job {
	return &gitlab.Job{
		ID: 1234,
		JobInfo: gitlab.JobInfo{
			Name: "test: [backend, 1/2]", PipelineID: 77, ProjectID: 42, ProjectFullPath: "group/project",
			InstanceUUID: "5f2a6c0e-0000-4000-8000-000000000000",
		},
		GitInfo:    gitlab.GitInfo{RepoURL: "https://gitlab-ci-token:glcbt-secret@gitlab.example.com/group/project.git", Ref: "main", Sha: "2f5c1d"},
		RunnerInfo: gitlab.RunnerInfo{UUID: "runner one", Timeout: 3600},
		Image:      gitlab.Image{Name: "golang:1.26"},
		Variables: gitlab.Variables{
			{Key: "CI_JOB_ID", Value: "1234", Public: true},
			{Key: "PASSWORD", Value: "s3cr3t", Masked: true},
			{Key: "POSTGRES_DB", Value: "app_$CI_JOB_ID", Public: true},
		},
	}
}

func TestBuildGolden(t *testing.T) {
	tests := []struct {
		name     string
		job      func(*gitlab.Job)
		settings func(*settings.Settings)
	}{
		{name: "plain"},
		{
			name: "services and registry",
			job: func(j *gitlab.Job) {
				j.Services = []gitlab.Image{
					{
						Name: "registry.example.com:5000/library/postgres:16", Alias: "db, database",
						Variables: gitlab.Variables{{Key: "HEALTHCHECK_TCP_PORT", Value: "5432"}, {Key: "POSTGRES_PASSWORD", Value: "$PASSWORD"}},
					},
					{Name: "redis", Entrypoint: []string{"redis-server"}, Command: []string{"--port", "7000"}},
				}
				j.Credentials = []gitlab.Credential{{Type: "registry", URL: "registry.example.com:5000", Username: "gitlab-ci-token", Password: "glcbt-secret"}}
			},
		},
		{
			name: "grants",
			job: func(j *gitlab.Job) {
				j.Variables = append(j.Variables, gitlab.Variable{Key: "PODLANE_GRANTS", Value: "review-cluster"})
			},
		},
		{
			name: "every setting",
			settings: func(s *settings.Settings) {
				s.Job.AgentImage = "podlane/helper:v1"
				s.Job.HelperImage = "gitlab/gitlab-runner-helper"
				s.Pod.ServiceAccount = "ci"
				s.Pod.ImagePullSecrets = []string{"mirror"}
				s.Pod.NodeSelector = map[string]string{"pool": "ci"}
				s.Pod.Labels = map[string]string{"team": "platform"}
				s.Pod.Annotations = map[string]string{"cost": "42"}
				s.Pod.PriorityClass = "low"
				s.Pod.RuntimeClass = "gvisor"
				s.Resources.Build.MemoryLimit = "1Gi"
				s.Resources.Pod.MemoryLimit = "2Gi"
				s.Pod.PullPolicy = []string{"Always", "IfNotPresent"}
			},
		},
		{
			name: "template",
			job: func(j *gitlab.Job) {
				j.Services = []gitlab.Image{{Name: "postgres", Alias: "db"}}
				j.Variables = append(j.Variables, gitlab.Variable{Key: settings.TemplateVariable, Value: "large"})
				j.Image.ExecutorOpts.Kubernetes.User = "1001:1002"
				j.Image.Entrypoint = []string{"/usr/bin/env", "LANG=C"}
			},
			settings: func(s *settings.Settings) {
				s.Kubernetes.PodTemplate = baseTemplate
				s.PodTemplates = []settings.PodTemplate{
					{Name: "for-others", Projects: []int64{7}, Template: largeTemplate},
					{Name: "large", Template: largeTemplate, OnRequest: true},
				}
				s.Pod.NodeSelector = map[string]string{"pool": "ci"}
			},
		},
		{
			name: "privileged",
			settings: func(s *settings.Settings) {
				s.PodTemplates = []settings.PodTemplate{{Name: "privileged", Template: privilegedTemplate}}
			},
		},
		{
			name:     "restricted",
			settings: func(s *settings.Settings) { s.Security.Level = settings.LevelRestricted },
		},
		{
			name: "overwrites",
			job: func(j *gitlab.Job) {
				j.Services = []gitlab.Image{
					{Name: "postgres", Variables: gitlab.Variables{{Key: "KUBERNETES_SERVICE_MEMORY_LIMIT", Value: "1Gi"}}},
					{Name: "redis"},
				}
				for key, value := range everyOverwrite {
					j.Variables = append(j.Variables, gitlab.Variable{Key: key, Value: value})
				}
				sortVariables(j.Variables)
			},
			settings: allowEverything,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			job, s := testJob(), settings.Default()
			if tt.job != nil {
				tt.job(job)
			}
			if tt.settings != nil {
				tt.settings(&s)
			}
			m, err := Build(job, &s, "a1b2c3")
			if err != nil {
				t.Fatal(err)
			}
			got, err := yaml.Marshal(m.Pod)
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"s3cr3t", "glcbt-secret", "app_1234"} {
				if strings.Contains(string(got), secret) {
					t.Errorf("the pod holds a variable's value: %s", secret)
				}
			}
			golden := filepath.Join("testdata", strings.ReplaceAll(tt.name, " ", "-")+".yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("pod differs from %s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func TestBuildPutsServiceVariablesIntoASecret(t *testing.T) {
	job, s := testJob(), settings.Default()
	job.Services = []gitlab.Image{{Name: "postgres", Variables: gitlab.Variables{{Key: "POSTGRES_PASSWORD", Value: "$PASSWORD"}, {Key: "POSTGRES_DB", Value: "own"}, {Key: "not a name", Value: "x"}}}}
	m, err := Build(job, &s, "a")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"CI_JOB_ID": "1234", "POSTGRES_DB": "own", "POSTGRES_PASSWORD": "s3cr3t"}
	if diff := cmp.Diff(want, m.Secrets[0].StringData); diff != "" {
		t.Errorf("environment of the service (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{Name(job) + "-pull", Name(job) + "-svc-0"}, SecretNames(job)); diff != "" {
		t.Errorf("names of secrets (-want +got):\n%s", diff)
	}
}

func TestBuildBlamesTheJobsAuthor(t *testing.T) {
	tests := []struct {
		name string
		job  func(*gitlab.Job)
		want string
	}{
		{"no image", func(j *gitlab.Job) { j.Image.Name = "" }, "the job names no image"},
		{"image from an empty variable", func(j *gitlab.Job) { j.Image.Name = "$NOTHING" }, "the job names no image"},
		{"service without a name", func(j *gitlab.Job) { j.Services = []gitlab.Image{{}} }, "service 1 has no image name"},
		{"alias", func(j *gitlab.Job) { j.Services = []gitlab.Image{{Name: "redis", Alias: "my_redis"}} }, `service redis: alias "my_redis" is not a host name`},
		{"port", func(j *gitlab.Job) {
			j.Services = []gitlab.Image{{Name: "redis", Variables: gitlab.Variables{{Key: "HEALTHCHECK_TCP_PORT", Value: "99999"}}}}
		}, `HEALTHCHECK_TCP_PORT is "99999": expected a port`},
		{"auth config", func(j *gitlab.Job) {
			j.Variables = append(j.Variables, gitlab.Variable{Key: "DOCKER_AUTH_CONFIG", Value: "hunter2"})
		}, "the variable DOCKER_AUTH_CONFIG is not JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			job, s := testJob(), settings.Default()
			tt.job(job)
			_, err := Build(job, &s, "a")
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the message holds a secret")
			}
		})
	}
}

func TestImageHosts(t *testing.T) {
	tests := map[string][]string{
		"redis":                      {"redis"},
		"redis:7":                    {"redis"},
		"tutum/wordpress:latest":     {"tutum-wordpress"},
		"registry:4999/tutum/wp:1":   {"registry-tutum-wp"},
		"reg.example.com/a@sha256:f": {"reg.example.com-a"},
		"under_score/image":          nil,
	}
	for image, want := range tests {
		if diff := cmp.Diff(want, imageHosts(image)); diff != "" {
			t.Errorf("hosts of %s (-want +got):\n%s", image, diff)
		}
	}
}

func TestPullConfigMerges(t *testing.T) {
	job := testJob()
	job.Credentials = []gitlab.Credential{
		{Type: "registry", URL: "a.example.com", Username: "u", Password: "p"},
		{Type: "registry", URL: "b.example.com", Username: "u", Password: "p"},
		{Type: "other", URL: "c.example.com"},
	}
	job.Variables = append(job.Variables, gitlab.Variable{Key: "DOCKER_AUTH_CONFIG", Value: `{"auths":{"b.example.com":{"auth":"eDp5"}},"credsStore":"x"}`})
	got, err := pullConfig(job)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"auths":{"a.example.com":{"username":"u","password":"p"},"b.example.com":{"auth":"eDp5"}}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNameIsTheJobs(t *testing.T) {
	a, b := testJob(), testJob()
	if Name(a) != Name(b) {
		t.Error("two looks at one job give two names")
	}
	b.Variables = append(b.Variables, gitlab.Variable{Key: "CI_JOB_ID", Value: "9"}, gitlab.Variable{Key: "CI_PROJECT_ID", Value: "9"})
	if Name(a) != Name(b) {
		t.Error("a variable changes the pod's name")
	}
	b.JobInfo.InstanceUUID = "another"
	if Name(a) == Name(b) {
		t.Error("jobs of two GitLab instances share a pod")
	}
}

func TestPullFailure(t *testing.T) {
	tests := []struct{ name, message, want string }{
		{"containerd not found", `rpc error: code = NotFound desc = failed to pull and unpack image "docker.io/library/nope:1": failed to resolve reference "docker.io/library/nope:1": docker.io/library/nope:1: not found`, "image not found"},
		{"docker hub hides", `failed to resolve reference "docker.io/x/y:1": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed`, "image pull denied"},
		{"401", `failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized`, "image pull denied"},
		{"dns", `failed to do request: Head "https://nope.invalid/v2/": dial tcp: lookup nope.invalid: no such host`, ""},
		{"registry down", `failed to do request: Head "http://10.0.0.1:5000/v2/x/manifests/1": dial tcp 10.0.0.1:5000: connect: connection refused`, ""},
		{"rate limit", `toomanyrequests: You have reached your pull rate limit. Access denied until later`, ""},
		{"backoff", `Back-off pulling image "x"`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := pullFailure("image", tt.message)
			switch {
			case got == nil && tt.want != "":
				t.Errorf("got nothing, want %s", tt.want)
			case got != nil && got.Reason != tt.want:
				t.Errorf("got %s, want %q", got.Reason, tt.want)
			}
		})
	}
}

func TestLost(t *testing.T) {
	ended := func(name, reason string, code int32) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name, Image: "img", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}}
	}
	disrupted := func(reason, message string, containers ...corev1.ContainerStatus) corev1.PodStatus {
		return corev1.PodStatus{
			Phase: corev1.PodRunning, ContainerStatuses: containers,
			Conditions: []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason, Message: message}},
		}
	}
	tests := []struct {
		name   string
		status corev1.PodStatus
		want   string
	}{
		{"running", corev1.PodStatus{Phase: corev1.PodRunning}, ""},
		{"a service ended", corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{ended("svc-0", "Error", 1)}}, ""},
		{"oom", corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{ended("build", "OOMKilled", 137)}}, "out of memory: container build was killed; it has no limit, so its node ran out of memory"},
		{
			"out of disk",
			corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: `Container build exceeded its local ephemeral storage limit "1Gi". `},
			`pod lost: Evicted: Container build exceeded its local ephemeral storage limit "1Gi".`,
		},
		{
			"node out of disk",
			corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. Container build was using 40Gi, request is 0, has larger consumption of ephemeral-storage. "},
			"pod lost: Evicted: The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. Container build was using 40Gi, request is 0, has larger consumption of ephemeral-storage.",
		},
		{"node shut down", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "NodeShutdown", Message: "Pod was rejected as the node is shutting down."}, "pod lost: NodeShutdown: Pod was rejected as the node is shutting down."},
		{
			"taint", disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", ended("helper", "Error", 143)),
			"pod lost: its node has a taint that the pod does not tolerate: it is unreachable, or being taken away (Taint manager: deleting due to NoExecute taint)",
		},
		{"node gone", disrupted("DeletionByPodGC", "PodGC: node no longer exists", ended("build", "Error", 137)), "pod lost: its node is gone (PodGC: node no longer exists)"},
		{"a reason to come", disrupted("DeletionBySomethingNew", "", ended("build", "Error", 137)), "pod lost: DeletionBySomethingNew"},
		{"spot instance", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Terminated", Message: "Pod was terminated in response to imminent node shutdown."}, "pod lost: Terminated: Pod was terminated in response to imminent node shutdown."},
		{"preempted", disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod", ended("build", "Error", 143)), "pod lost: preempted by a pod of higher priority (default-scheduler: preempting to accommodate a higher priority pod)"},
		{"node pressure", disrupted("TerminationByKubelet", "The node was low on resource: memory.", ended("build", "Error", 137)), "pod lost: ended by its node, which runs out of a resource or shuts down (The node was low on resource: memory.)"},
		{
			"init container",
			corev1.PodStatus{Phase: corev1.PodFailed, InitContainerStatuses: []corev1.ContainerStatus{ended("agent", "Error", 1)}},
			"pod lost: the pod has ended: init container agent ended with exit code 1",
		},
		{"evicted", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low on memory"}, "pod lost: Evicted: low on memory"},
		{"deadline", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "DeadlineExceeded", Message: "too long"}, "deadline exceeded: too long"},
		{"ended", corev1.PodStatus{Phase: corev1.PodSucceeded}, "pod lost: the pod has ended"},
		{
			"disruption ahead",
			corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI"}}},
			"",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if f := Lost(&corev1.Pod{Status: tt.status}); f != nil {
				got = f.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReadyArgs(t *testing.T) {
	got := ReadyArgs([]Service{{Name: "db", Ports: []int{5432, 5433}}, {Name: "quiet"}}, time.Minute)
	want := []string{"ready", "--timeout", "1m0s", "--service", "db=5432,5433"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}
