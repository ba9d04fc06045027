package pod

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// settingValues have a value in TOML for each setting that the parity page
// names, one that differs from its default and shows in what is planned for
// thoroughJob.
var settingValues = map[string]string{
	"kubernetes.namespace":                `"elsewhere"`,
	"kubernetes.namespace_per_job":        "true\nnamespace = \"ci-{job_id}\"",
	"job.image":                           `"debian:12"`,
	"job.helper_image":                    `"mirror/podlane-helper-{arch}:v1"`,
	"pod.service_account":                 `"builder"`,
	"pod.service_account_pull_secrets":    "true",
	"pod.pull_policy":                     `["Never", "Always"]`,
	"pod.image_pull_secrets":              `["registry"]`,
	"pod.node_selector":                   `{pool = "ci"}`,
	"pod.priority_class":                  `"low"`,
	"pod.runtime_class":                   `"gvisor"`,
	"pod.disruption_budget":               "true",
	"pod.labels":                          `{team = "backend"}`,
	"pod.annotations":                     `{team = "backend"}`,
	"pod.termination_grace_period":        `"99s"`,
	"images.allowed_images":               `["nothing/**"]`,
	"images.allowed_services":             `["nothing/**"]`,
	"images.allowed_pull_policies":        `["Never"]`,
	"images.allowed_users":                "[7]",
	"images.allowed_groups":               "[7]",
	"overwrites.namespace":                `".*"`,
	"overwrites.service_account":          `".*"`,
	"overwrites.node_selector":            `".*"`,
	"overwrites.node_tolerations":         `".*"`,
	"overwrites.pod_labels":               `".*"`,
	"overwrites.pod_annotations":          `".*"`,
	"security.allow_privilege_escalation": "true",
	"security.capabilities":               `["CHOWN"]`,
}

// valueOf also knows the many tables of resources.
func valueOf(key string) string {
	value, known := settingValues[key]
	switch table, name, _ := strings.Cut(key, "."); {
	case known:
		return value
	case table != "resources" && table != "overwrites":
		return ""
	case strings.Contains(name, "cpu"):
		return `"7"`
	default:
		return `"7Gi"`
	}
}

// elsewhere are settings that have no part in a plan, each with the test that
// shows what they do.
var elsewhere = map[string]string{
	"kubernetes.server":       "TestTokensAreReplacedOnce",
	"kubernetes.ca_file":      "TestTokensAreReplacedOnce",
	"kubernetes.kubeconfig":   "TestTokensTakeAKubeconfigsPlace",
	"kubernetes.context":      "TestContextOfAKubeconfig",
	"kubernetes.retry_budget": "TestRetryBudgetOfRequests",
	"job.start_timeout":       "TestUnschedulable",
	"vault.kubernetes":        "TestTokensAreReplacedOnce",
}

// templateValues have a value in YAML for each field of a template that the
// page names: the whole template with it.
var templateValues = map[string]string{
	"spec":                              "spec: {hostUsers: false}",
	"spec.automountServiceAccountToken": "spec: {automountServiceAccountToken: true}",
	"spec.tolerations":                  "spec: {tolerations: [{key: ci, operator: Exists}]}",
	"spec.affinity":                     "spec: {affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone}]}}}",
	"spec.schedulerName":                "spec: {schedulerName: packer}",
	"spec.volumes":                      "spec: {volumes: [{name: builds, hostPath: {path: /fast}}]}",
	"spec.hostAliases":                  "spec: {hostAliases: [{ip: 10.0.0.1, hostnames: [db]}]}",
	"spec.dnsConfig":                    "spec: {dnsConfig: {searches: [example.com]}}",
	"spec.dnsPolicy":                    "spec: {dnsPolicy: Default}",
	"spec.securityContext":              "spec: {securityContext: {fsGroup: 7}}",
	"spec.containers":                   "spec: {containers: [{name: proxy, image: proxy}]}",
	"spec.containers.lifecycle":         "spec: {containers: [{name: build, lifecycle: {preStop: {exec: {command: [sync]}}}}]}",
	"spec.containers.securityContext.privileged": "spec: {containers: [{name: build, securityContext: {privileged: true}}]}",
	"spec.containers.securityContext of build":   "spec: {containers: [{name: build, securityContext: {runAsUser: 7}}]}",
	"spec.containers.securityContext of helper":  "spec: {containers: [{name: helper, securityContext: {runAsUser: 7}}]}",
	"spec.containers.securityContext of service": "spec: {containers: [{name: service, securityContext: {runAsUser: 7}}]}",
}

// thoroughJob asks for all that a job can ask for.
func thoroughJob() *gitlab.Job {
	job := testJob()
	job.Image.PullPolicy = []string{"never", "if-not-present"}
	job.Image.ExecutorOpts.Kubernetes.User = "1000:1000"
	job.Services = []gitlab.Image{{Name: "postgres"}}
	for key, value := range everyOverwrite {
		job.Variables = append(job.Variables, gitlab.Variable{Key: key, Value: value})
	}
	sortVariables(job.Variables)
	return job
}

// planOf is all that the cluster is told of a job, or why it is told nothing.
func planOf(t *testing.T, job *gitlab.Job, s *settings.Settings) string {
	t.Helper()
	m, err := Build(job, s, "a")
	if err != nil {
		return err.Error()
	}
	m.Warnings = nil
	text, err := yaml.Marshal([]any{m.Pod, m.Namespace, m.Secrets, m.DisruptionBudget, m.accountSecrets, fmt.Sprint(m.pulls)})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Each row of the parity page is true: what it names changes a job's pod, or has
// a test of its own.
func TestParityPageKeepsItsPromises(t *testing.T) {
	const page = "../../docs/kubernetes-executor-parity.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`([^`]+)`")
	said := map[string]int{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z ]+) \\| (.+) \\|$").FindAllStringSubmatch(string(text), -1) {
		name, answer, how := m[1], m[2], m[3]
		said[answer]++
		t.Run(name, func(t *testing.T) {
			switch answer {
			case "variable":
				checkVariable(t, name)
			case "template":
				checkField(t, names.FindStringSubmatch(how)[1], how)
			case "setting":
				keys := names.FindAllStringSubmatch(how, -1)
				for i, key := range keys {
					// A row may name a placeholder or another page first.
					if strings.Contains(key[1], ".") && !strings.Contains(key[1], " ") {
						checkSetting(t, key[1])
					} else if i == len(keys)-1 {
						t.Errorf("no setting stands in %q", how)
					}
				}
			}
		})
	}
	for answer, least := range map[string]int{"variable": 30, "template": 10, "setting": 50, "not needed": 10} {
		if said[answer] < least {
			t.Errorf("found only %d rows that say %q", said[answer], answer)
		}
	}
}

func checkSetting(t *testing.T, key string) {
	t.Helper()
	if test, ok := elsewhere[key]; ok {
		if all, err := allTests(); err != nil || !slices.Contains(all, test) {
			t.Errorf("%s: there is no test %s; %v", key, test, err)
		}
		return
	}
	value := valueOf(key)
	if value == "" {
		t.Fatalf("%s: no value to try; add one, or name the test that shows what it does", key)
	}
	dot := strings.LastIndex(key, ".")
	s, err := settings.Parse("podlane.toml", fmt.Sprintf("[%s]\n%s = %s\n", key[:dot], key[dot+1:], value))
	if err != nil {
		t.Fatal(err)
	}
	job, plain := thoroughJob(), settings.Default()
	// Some show only where a job asks for nothing of the kind.
	if key == "job.image" {
		job.Image.Name = ""
	}
	if key != "images.allowed_pull_policies" && key != "pod.pull_policy" {
		job.Image.PullPolicy = nil
	}
	if planOf(t, job, &plain) == planOf(t, job, &s) {
		t.Errorf("%s = %s changes nothing", key, value)
	}
}

// allTests are the names of all tests in the checkout.
var allTests = sync.OnceValues(func() ([]string, error) {
	var found []string
	name := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range name.FindAllSubmatch(text, -1) {
			found = append(found, string(m[1]))
		}
		return err
	})
	return found, err
})

// checkField looks a field up in the type, and shows that it gets through.
func checkField(t *testing.T, path, how string) {
	t.Helper()
	field := reflect.ValueOf(corev1.PodTemplateSpec{})
	for _, name := range strings.Split(path, ".") {
		if field = member(field, name); !field.IsValid() {
			t.Fatalf("a template has no field %s", path)
		}
	}
	key := path
	for _, container := range []string{BuildContainer, HelperContainer, ServiceContainer} {
		if strings.HasSuffix(how, " of `"+container+"`") {
			key += " of " + container
		}
	}
	template, known := templateValues[key]
	if !known {
		t.Fatalf("%s: no value to try", key)
	}
	plain, s := settings.Default(), settings.Default()
	s.Kubernetes.PodTemplate = template
	with := planOf(t, thoroughJob(), &s)
	if strings.HasPrefix(with, "invalid") || with == planOf(t, thoroughJob(), &plain) {
		t.Errorf("%s changes nothing: %s", template, with)
	}
}

// member finds a field by its name in JSON, in a list's items as well.
func member(v reflect.Value, name string) reflect.Value {
	kind := v.Type()
	for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice {
		kind = kind.Elem()
	}
	return jsonField(reflect.New(kind).Elem(), name)
}

// checkVariable shows that a variable, or each of its family, changes the pod
// where settings let it.
func checkVariable(t *testing.T, name string) {
	t.Helper()
	plan := func(vars ...gitlab.Variable) *corev1.Pod {
		job, s := testJob(), settings.Default()
		job.Services = []gitlab.Image{{Name: "postgres"}}
		job.Variables = append(job.Variables, vars...)
		allowEverything(&s)
		m, err := Build(job, &s, "a")
		if err != nil {
			t.Fatalf("%v: %v", vars, err)
		}
		return m.Pod
	}
	tried := 0
	for key, value := range everyOverwrite {
		if key == name || strings.HasSuffix(name, "_") && strings.HasPrefix(key, name) {
			tried++
			if cmp.Diff(plan(), plan(gitlab.Variable{Key: key, Value: value})) == "" {
				t.Errorf("%s changes nothing", key)
			}
		}
	}
	if tried == 0 {
		t.Error("no value to try")
	}
}
