package pod

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

const baseTemplate = `
metadata:
  labels: {team: platform, podlane/job: "0"}
spec:
  hostUsers: false
  dnsPolicy: ClusterFirst
  schedulerName: bin-packer
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [linux]}]}]
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
  tolerations: [{key: ci, operator: Exists}]
  nodeSelector: {disk: ssd}
  volumes:
  - name: builds
    ephemeral:
      volumeClaimTemplate:
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Gi}}}
  - name: shared
    hostPath: {path: /etc}
  - name: certificates
    configMap: {name: company-ca}
  containers:
  - name: build
    command: [never]
    image: never
    env: [{name: HTTP_PROXY, value: "http://proxy:3128"}]
    volumeMounts: [{name: certificates, mountPath: /etc/ssl/company, readOnly: true}]
    lifecycle: {preStop: {exec: {command: [sync]}}}
  - name: service
    volumeMounts: [{name: certificates, mountPath: /etc/ssl/company}]
  - name: proxy
    image: registry.example.com/proxy:1
`

const largeTemplate = `
spec:
  priorityClassName: large
  volumes:
  - name: builds
    emptyDir: {sizeLimit: 50Gi}
  containers:
  - name: build
    env: [{name: SIZE, value: large}]
    resources:
      requests: {cpu: "8"}
      limits: {memory: 256Mi}
    securityContext: {runAsUser: 4711}
`

const privilegedTemplate = `
spec:
  containers:
  - name: build
    securityContext: {privileged: true}
`

// everyOverwrite has a value for each name and family.
var everyOverwrite = map[string]string{
	"KUBERNETES_CPU_REQUEST": "2", "KUBERNETES_CPU_LIMIT": "4", "KUBERNETES_MEMORY_REQUEST": "1Gi", "KUBERNETES_MEMORY_LIMIT": "2Gi",
	"KUBERNETES_EPHEMERAL_STORAGE_REQUEST": "1Gi", "KUBERNETES_EPHEMERAL_STORAGE_LIMIT": "3Gi",
	"KUBERNETES_HELPER_CPU_REQUEST": "100m", "KUBERNETES_HELPER_CPU_LIMIT": "1", "KUBERNETES_HELPER_MEMORY_REQUEST": "100Mi", "KUBERNETES_HELPER_MEMORY_LIMIT": "200Mi",
	"KUBERNETES_HELPER_EPHEMERAL_STORAGE_REQUEST": "1Mi", "KUBERNETES_HELPER_EPHEMERAL_STORAGE_LIMIT": "2Mi",
	"KUBERNETES_SERVICE_CPU_REQUEST": "300m", "KUBERNETES_SERVICE_CPU_LIMIT": "1", "KUBERNETES_SERVICE_MEMORY_REQUEST": "300Mi", "KUBERNETES_SERVICE_MEMORY_LIMIT": "400Mi",
	"KUBERNETES_SERVICE_EPHEMERAL_STORAGE_REQUEST": "3Mi", "KUBERNETES_SERVICE_EPHEMERAL_STORAGE_LIMIT": "4Mi",
	"KUBERNETES_POD_CPU_REQUEST": "3", "KUBERNETES_POD_CPU_LIMIT": "6", "KUBERNETES_POD_MEMORY_REQUEST": "3Gi", "KUBERNETES_POD_MEMORY_LIMIT": "4Gi",
	"KUBERNETES_NODE_SELECTOR_ARCH": "kubernetes.io/arch=arm64", "KUBERNETES_NODE_SELECTOR_SPOT": "pool=spot",
	"KUBERNETES_NODE_TOLERATIONS_1": "node-role/ci:NoSchedule", "KUBERNETES_NODE_TOLERATIONS_2": "pool=spot:NoExecute",
	"KUBERNETES_NODE_TOLERATIONS_3": "empty=:PreferNoSchedule", "KUBERNETES_NODE_TOLERATIONS_4": "key",
	"KUBERNETES_POD_LABELS_1": "team=backend", "KUBERNETES_POD_ANNOTATIONS_1": "datadog.com/site=eu",
	"KUBERNETES_NAMESPACE_OVERWRITE": "ci-backend", "KUBERNETES_SERVICE_ACCOUNT_OVERWRITE": "deployer",
}

func allowEverything(s *settings.Settings) {
	all := settings.Container{CPURequest: "8", CPULimit: "8", MemoryRequest: "8Gi", MemoryLimit: "8Gi", EphemeralStorageRequest: "8Gi", EphemeralStorageLimit: "8Gi"}
	s.Overwrites = settings.Overwrites{
		Namespace: "ci-.*", ServiceAccount: "deployer", NodeSelector: ".*", NodeTolerations: ".*", PodLabels: ".*", PodAnnotations: ".*",
		Build: all, Helper: all, Service: all,
		Pod: settings.PodResources{CPURequest: "8", CPULimit: "8", MemoryRequest: "8Gi", MemoryLimit: "8Gi"},
	}
	s.Job.HelperImage = "podlane/helper-{arch}:v1"
}

func sortVariables(vars gitlab.Variables) {
	slices.SortStableFunc(vars, func(a, b gitlab.Variable) int { return strings.Compare(a.Key, b.Key) })
}

func withVariables(pairs ...string) func(*gitlab.Job) {
	return func(j *gitlab.Job) {
		for i := 0; i < len(pairs); i += 2 {
			j.Variables = append(j.Variables, gitlab.Variable{Key: pairs[i], Value: pairs[i+1]})
		}
	}
}

// What settings don't allow has no effect but a line in the log.
func TestOverwritesThatAreNotAllowed(t *testing.T) {
	job, s := testJob(), settings.Default()
	for key, value := range everyOverwrite {
		job.Variables = append(job.Variables, gitlab.Variable{Key: key, Value: value})
	}
	with, err := Build(job, &s, "a")
	if err != nil {
		t.Fatal(err)
	}
	without, err := Build(testJob(), &s, "a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(without.Pod, with.Pod); diff != "" {
		t.Errorf("the pod has changed (-without +with):\n%s", diff)
	}
	if len(with.Warnings) != len(everyOverwrite)-countPrefix("KUBERNETES_SERVICE_", "KUBERNETES_SERVICE_ACCOUNT_OVERWRITE") {
		t.Errorf("%d variables have no effect, and %d lines say so:\n%s", len(everyOverwrite), len(with.Warnings), strings.Join(with.Warnings, "\n"))
	}
	want := "KUBERNETES_CPU_REQUEST has no effect: overwrites.build.cpu_request is not set in the settings of podlane"
	if !slices.Contains(with.Warnings, want) {
		t.Errorf("nobody says %q", want)
	}
}

// countPrefix counts what is said for services only, of which the job has none.
func countPrefix(prefix, except string) (n int) {
	for key := range everyOverwrite {
		if strings.HasPrefix(key, prefix) && key != except {
			n++
		}
	}
	return n
}

func TestJobsThatAskForTooMuch(t *testing.T) {
	tests := []struct {
		name     string
		job      func(*gitlab.Job)
		settings func(*settings.Settings)
		want     string
	}{
		{
			name: "more than the maximum", job: withVariables("KUBERNETES_CPU_REQUEST", "9"), settings: allowEverything,
			want: "KUBERNETES_CPU_REQUEST is 9: more than 8, which overwrites.build.cpu_request in the settings of podlane allows",
		},
		{
			name: "no quantity", job: withVariables("KUBERNETES_HELPER_MEMORY_LIMIT", "much"), settings: allowEverything,
			want: `KUBERNETES_HELPER_MEMORY_LIMIT is "much": expected a quantity such as "500m" or "512Mi"`,
		},
		{
			name: "a request above the limit", job: withVariables("KUBERNETES_CPU_REQUEST", "2", "KUBERNETES_CPU_LIMIT", "1"), settings: allowEverything,
			want: "the job asks for 2 of cpu for container build, more than the limit of 1",
		},
		{
			name: "bearer token", job: withVariables("KUBERNETES_BEARER_TOKEN", "hunter2"), settings: allowEverything,
			want: "KUBERNETES_BEARER_TOKEN is set: podlane takes no credential for the cluster from a job",
		},
		{
			name: "another namespace", job: withVariables("KUBERNETES_NAMESPACE_OVERWRITE", "kube-system"), settings: allowEverything,
			want: `KUBERNETES_NAMESPACE_OVERWRITE is "kube-system": overwrites.namespace in the settings of podlane allows ci-.*`,
		},
		{
			name: "part of a name", job: withVariables("KUBERNETES_SERVICE_ACCOUNT_OVERWRITE", "deployer-admin"), settings: allowEverything,
			want: `KUBERNETES_SERVICE_ACCOUNT_OVERWRITE is "deployer-admin": overwrites.service_account in the settings of podlane allows deployer`,
		},
		{
			name: "no namespace at all", job: withVariables("KUBERNETES_NAMESPACE_OVERWRITE", "ci-../x"), settings: allowEverything,
			want: `KUBERNETES_NAMESPACE_OVERWRITE is "ci-../x": expected the name of a namespace`,
		},
		{
			name: "our label", job: withVariables("KUBERNETES_POD_LABELS_1", "podlane/job=1"), settings: allowEverything,
			want: `KUBERNETES_POD_LABELS_1 is "podlane/job=1": labels that start with podlane/ are podlane's own`,
		},
		{
			name: "our annotation", job: withVariables("KUBERNETES_POD_ANNOTATIONS_1", "podlane/job-url=x"), settings: allowEverything,
			want: `KUBERNETES_POD_ANNOTATIONS_1 is "podlane/job-url=x": expected key=value`,
		},
		{
			name: "no label", job: withVariables("KUBERNETES_NODE_SELECTOR_1", "arm64"), settings: allowEverything,
			want: `KUBERNETES_NODE_SELECTOR_1 is "arm64": expected key=value, as labels have them`,
		},
		{
			name: "no effect", job: withVariables("KUBERNETES_NODE_TOLERATIONS_1", "a=b:Nothing"), settings: allowEverything,
			want: `KUBERNETES_NODE_TOLERATIONS_1 is "a=b:Nothing": expected key=value:effect with NoSchedule`,
		},
		{
			name: "image", settings: func(s *settings.Settings) { s.Images.AllowedImages = []string{"registry.example.com/**"} },
			want: "image golang:1.26 is not allowed here: images.allowed_images in the settings of podlane allows registry.example.com/**",
		},
		{
			name: "service", job: func(j *gitlab.Job) { j.Services = []gitlab.Image{{Name: "mysql:8"}} },
			settings: func(s *settings.Settings) { s.Images.AllowedServices = []string{"postgres:*", "redis:*"} },
			want:     "service mysql:8 is not allowed here: images.allowed_services in the settings of podlane allows postgres:*, redis:*",
		},
		{
			name: "pull policy", job: func(j *gitlab.Job) { j.Image.PullPolicy = []string{"always", "never"} },
			want: "pull_policy of image golang:1.26 is always, never: images.allowed_pull_policies in the settings of podlane allows none of these",
		},
		{
			name: "unknown pull policy", job: func(j *gitlab.Job) { j.Image.PullPolicy = []string{"sometimes"} },
			want: `pull_policy of image golang:1.26 is "sometimes": expected always, if-not-present or never`,
		},
		{
			name: "user", job: func(j *gitlab.Job) { j.Image.ExecutorOpts.Kubernetes.User = "0" },
			settings: func(s *settings.Settings) { s.Images.AllowedUsers = []int64{1000} },
			want:     "the user of image is 0: images.allowed_users in the settings of podlane does not allow that",
		},
		{
			name: "named user", job: func(j *gitlab.Job) { j.Image.ExecutorOpts.Docker.User = "dave" },
			want: `the user of image: "dave" is not a user: expected numbers, "uid" or "uid:gid"`,
		},
		{
			name: "platform", job: func(j *gitlab.Job) { j.Image.ExecutorOpts.Docker.Platform = "linux/arm64" },
			settings: func(s *settings.Settings) { s.Pod.NodeSelector = map[string]string{"kubernetes.io/arch": "amd64"} },
			want:     `the platform of image is "linux/arm64", but the job's nodes are amd64`,
		},
		{
			name: "a template that is not there", job: withVariables(settings.TemplateVariable, "huge"),
			settings: func(s *settings.Settings) {
				s.PodTemplates = []settings.PodTemplate{{Name: "large"}, {Name: "small", OnRequest: true}, {Name: "secret", Protected: true}}
			},
			want: `PODLANE_POD_TEMPLATE is "huge": expected one of large, small, which this job may have`,
		},
		{
			name: "a template for others", job: withVariables(settings.TemplateVariable, "huge"),
			settings: func(s *settings.Settings) {
				s.PodTemplates = []settings.PodTemplate{{Name: "huge", Projects: []int64{7}}}
			},
			want: `PODLANE_POD_TEMPLATE is "huge": this job may have none of the runner's pod templates`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			job, s := testJob(), settings.Default()
			if tt.settings != nil {
				tt.settings(&s)
			}
			if tt.job != nil {
				tt.job(job)
			}
			_, err := Build(job, &s, "a")
			var f *Failure
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || errors.As(err, &f) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the message holds a secret")
			}
		})
	}
}

func TestTemplateMistakesAreTheSystemsFault(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown field", "spec:\n  contaners: []\n", `invalid pod template: kubernetes.pod_template: unknown field "contaners"; expected a PodTemplateSpec: metadata and spec`},
		{"a pod", "kind: Pod\nspec: {}\n", `invalid pod template: kubernetes.pod_template: unknown field "kind"`},
		{"no YAML", "spec: [\n", "invalid pod template: kubernetes.pod_template: yaml: "},
		{"restarts", "spec:\n  restartPolicy: Always\n", "invalid pod template: kubernetes.pod_template: found spec.restartPolicy Always, expected Never"},
		{"one service", "spec:\n  containers: [{name: svc-0}]\n", "invalid pod template: kubernetes.pod_template: found a container svc-0, expected the name \"service\""},
		{"no volume", "spec:\n  containers: [{name: build, volumeMounts: [{name: caches, mountPath: /x}]}]\n", `invalid pod template: container build mounts the volume "caches", expected one of builds, cache, `},
		{"no quantity", "spec:\n  containers: [{name: build, resources: {limits: {cpu: lots}}}]\n", `invalid pod template: kubernetes.pod_template: found a quantity that is none, expected one such as "500m" or "512Mi"`},
		{"a table", "spec:\n  tolerations: {key: ci}\n", "invalid pod template: kubernetes.pod_template: spec.tolerations: found a table, expected a list"},
		{"a text", "spec:\n  volumes: [{name: x, hostPath: /etc}]\n", "invalid pod template: kubernetes.pod_template: spec.volumes.hostPath: found a text, expected a table"},
		{"no number", "spec:\n  terminationGracePeriodSeconds: soon\n", "invalid pod template: kubernetes.pod_template: spec.terminationGracePeriodSeconds: found a text, expected a whole number"},
		{"a number", "spec:\n  hostUsers: 1\n", "invalid pod template: kubernetes.pod_template: spec.hostUsers: found a number, expected true or false"},
		{"a list", "- spec\n", "invalid pod template: kubernetes.pod_template: found a list, expected a PodTemplateSpec: metadata and spec"},
		{"twice", "spec:\n  containers: [{name: build, name: x}]\n", `invalid pod template: kubernetes.pod_template: yaml: unmarshal errors: line 2: key "name" already set in map; expected a PodTemplateSpec`},
		{"no image", "spec:\n  containers: [{name: proxy}]\n", "invalid pod template: kubernetes.pod_template: container \"proxy\" has no image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := settings.Default()
			s.Kubernetes.PodTemplate = tt.text
			_, err := Build(testJob(), &s, "a")
			var f *Failure
			if !errors.As(err, &f) || !strings.HasPrefix(err.Error(), tt.want) || f.Fault() != FaultSystem {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestTemplatesAreChosenByFacts(t *testing.T) {
	s := settings.Default()
	s.PodTemplates = []settings.PodTemplate{
		{Name: "asked", OnRequest: true},
		{Name: "protected", Protected: true},
		{Name: "mine", Projects: []int64{42}},
		{Name: "all"},
	}
	tests := []struct {
		name      string
		project   int64
		protected *bool
		asks      string
		want      string
	}{
		{"first that fits", 42, nil, "", "mine"},
		{"another project", 7, new(false), "", "all"},
		{"protected", 42, new(true), "", "protected"},
		{"asked for", 42, nil, "asked", "asked"},
		{"asked for one of the others", 42, new(true), "all", "all"},
		{"not its own", 7, nil, "mine", ""},
		{"not protected", 42, nil, "protected", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			job := testJob()
			job.JobInfo.ProjectID, job.GitInfo.Protected = tt.project, tt.protected
			withVariables(settings.TemplateVariable, tt.asks)(job)
			got, err := chooseTemplate(job, &s)
			switch {
			case tt.want == "" && err == nil:
				t.Errorf("got %s, want an error", got.Name)
			case tt.want != "" && (err != nil || got == nil || got.Name != tt.want):
				t.Errorf("got %v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestNamespace(t *testing.T) {
	tests := []struct {
		pattern, overwrite, allowed string
		perJob                      bool
		want                        string
		owns                        bool
	}{
		{pattern: "ci", want: "ci"},
		{pattern: "ci-{project_id}-{scope}", want: "ci-42-unprotected"},
		{pattern: "ci-job-{job_id}", perJob: true, want: "ci-job-1234", owns: true},
		{pattern: "ci", overwrite: "other", want: "ci"},
		{pattern: "ci", overwrite: "team-$CI_JOB_ID", allowed: "team-[0-9]+", want: "team-1234"},
		// A namespace that the job names is not podlane's to delete.
		{pattern: "ci-job-{job_id}", perJob: true, overwrite: "team-1", allowed: "team-.*", want: "team-1"},
	}
	for _, tt := range tests {
		job, s := testJob(), settings.Default()
		s.Kubernetes.Namespace, s.Kubernetes.NamespacePerJob, s.Overwrites.Namespace = tt.pattern, tt.perJob, tt.allowed
		withVariables(varNamespace, tt.overwrite)(job)
		got, err := Namespace(job, &s)
		if err != nil || got != tt.want || OwnsNamespace(job, &s) != tt.owns {
			t.Errorf("%+v: got %q, %v, own: %v", tt, got, err, OwnsNamespace(job, &s))
		}
		m, err := Build(job, &s, "a")
		if err != nil || (m.Namespace != nil) != tt.owns || m.Pod.Namespace != tt.want {
			t.Errorf("%+v: planned %v, %v", tt, m, err)
		}
	}
}

func TestPullPoliciesAreTriedInOrder(t *testing.T) {
	job, s := testJob(), settings.Default()
	s.Pod.PullPolicy = []string{"Always", "IfNotPresent"}
	s.Images.AllowedPullPolicies = []string{"Never"}
	job.Image.PullPolicy = []string{"never", "always"}
	m, err := Build(job, &s, "a")
	if err != nil {
		t.Fatal(err)
	}
	policies := func() (out []corev1.PullPolicy) {
		for _, c := range m.Pod.Spec.Containers {
			out = append(out, c.ImagePullPolicy)
		}
		return out
	}
	steps := []struct {
		container string
		ok        bool
		want      []corev1.PullPolicy // helper, build
	}{
		{"nobody", false, []corev1.PullPolicy{"Always", "Never"}},
		{BuildContainer, true, []corev1.PullPolicy{"Always", "Always"}},
		{BuildContainer, false, []corev1.PullPolicy{"Always", "Always"}},
		{HelperContainer, true, []corev1.PullPolicy{"IfNotPresent", "Always"}},
	}
	for _, step := range steps {
		if ok := m.nextPull(step.container); ok != step.ok {
			t.Errorf("another policy for %s: %v", step.container, ok)
		}
		if diff := cmp.Diff(step.want, policies()); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", step.container, diff)
		}
	}
}

func TestRestrictOnlyWhenToldTo(t *testing.T) {
	s := settings.Default()
	m, err := Build(testJob(), &s, "a")
	if err != nil {
		t.Fatal(err)
	}
	if m.restrict(nil) || m.restrict(errors.New("exceeded quota")) {
		t.Error("restricted without a reason")
	}
	refused := errors.New(`pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true`)
	if !m.restrict(refused) || *m.Pod.Spec.SecurityContext.RunAsUser != 1000 {
		t.Error("not restricted")
	}
	if m.restrict(refused) {
		t.Error("restricted twice")
	}
}

func TestOverlayLeavesLayersAlone(t *testing.T) {
	base := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeSelector: map[string]string{"a": "1"}, Containers: []corev1.Container{{
		Name: "c", Env: []corev1.EnvVar{{Name: "A", Value: "1"}}, Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("1")}},
	}}}}
	over := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{NodeSelector: map[string]string{"b": "2"}, Containers: []corev1.Container{{
		Name: "c", Env: []corev1.EnvVar{{Name: "A", Value: "2"}, {Name: "B"}}, Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("2")}},
	}}}}
	before, before2 := base.DeepCopy(), over.DeepCopy()
	got := overlay(nil, base, over)
	if diff := cmp.Diff(before, base) + cmp.Diff(before2, over); diff != "" {
		t.Errorf("a layer has changed:\n%s", diff)
	}
	want := corev1.PodSpec{NodeSelector: map[string]string{"a": "1", "b": "2"}, Containers: []corev1.Container{{
		Name: "c", Env: []corev1.EnvVar{{Name: "A", Value: "2"}, {Name: "B"}}, Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"cpu": resource.MustParse("2")}},
	}}}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
