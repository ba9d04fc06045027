package settings

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseReportsEverythingAtOnce(t *testing.T) {
	text := `
[kubernetes]
namespace = 7
contxt = "prod"

[job]
image = ["alpine"]
idle_timeout = "soon"
start_timeout = 30

[pod.node_selector]
disk = 1

[nonsense]
x = 1
`
	_, err := Parse("podlane.toml", text)
	want := []string{
		`podlane.toml:3: kubernetes.namespace: found 7, expected a string`,
		`podlane.toml:4: kubernetes.contxt: found a key that does not exist, expected one of ca_file, context, kubeconfig, namespace, namespace_per_job, pod_template, request_timeout, retry_budget, server`,
		`podlane.toml:7: job.image: found a list, expected a string`,
		`podlane.toml:8: job.idle_timeout: found "soon", expected a duration such as "90s" or "10m"`,
		`podlane.toml:9: job.start_timeout: found 30, expected a duration such as "90s" or "10m"`,
		`podlane.toml:11: pod.node_selector: found a table, expected a table of strings`,
		`podlane.toml:14: nonsense: found a key that does not exist, expected one of cache, grants, images, job, kubernetes, observe, overwrites, pod, pod_templates, resources, security, vault`,
	}
	if err == nil {
		t.Fatal("a file full of mistakes was accepted")
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("issues (-want +got):\n%s", diff)
	}
}

func TestParseReportsImpossibleValues(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"namespace", "[kubernetes]\nnamespace = \"No_Name\"", `f:2: kubernetes.namespace: found "No_Name", expected the name of a namespace`},
		{"shell", "[job]\nshell = \"zsh\"", `f:2: job.shell: found "zsh", expected one of bash, sh`},
		{"relative dir", "[job]\nbuilds_dir = \"builds\"", `f:2: job.builds_dir: found "builds", expected an absolute path`},
		{"same dirs", "[job]\ncache_dir = \"/builds\"", `f:2: job.cache_dir: found "/builds", expected a directory other than job.builds_dir`},
		{"idle", "[job]\nidle_timeout = \"1s\"", `f:2: job.idle_timeout: found "1s", expected a duration from 1m0s to 168h0m0s`},
		{"pull policy", "[pod]\npull_policy = [\"Sometimes\"]", `f:2: pod.pull_policy: found "Sometimes", expected one of Always`},
		{"our labels", "[pod.labels]\n\"podlane/job\" = \"1\"", `f:1: pod.labels: found "podlane/job", expected a key that does not start with "podlane/"`},
		{"quantity", "[resources.build]\nmemory_limit = \"1 GB\"", `f:2: resources.build.memory_limit: found "1 GB", expected a quantity`},
		{"table expected", "job = 1", `f:1: job: found 1, expected a table`},
		{"syntax", "[job\nimage = 1", `f:2: expected '.' or ']'`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f", tt.text)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want a message that starts with %s", err, tt.want)
			}
		})
	}
}

func TestParseKeepsDefaultsThatAreNotNamed(t *testing.T) {
	got, err := Parse("f", "[job]\nimage = \"alpine:3\"\ncancel_grace = \"3s\"")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Job.Image = "alpine:3"
	want.Job.CancelGrace = Duration(3 * time.Second)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

// The shipped example names every setting with its default, so that nobody has
// to read code to learn what there is.
func TestExampleNamesEverySettingWithItsDefault(t *testing.T) {
	const example = "../../podlane.example.toml"
	got, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	// An empty table in the file is an empty map, not a missing one.
	want.Pod.ImagePullSecrets = []string{}
	want.Images = Images{AllowedImages: []string{}, AllowedServices: []string{}, AllowedPullPolicies: []string{}, AllowedUsers: []int64{}, AllowedGroups: []int64{}}
	want.Pod.NodeSelector, want.Pod.Labels, want.Pod.Annotations = map[string]string{}, map[string]string{}, map[string]string{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range leaves(reflect.TypeOf(want)) {
		if !strings.Contains(string(text), key) {
			t.Errorf("the example does not name %s", key)
		}
	}
}

// What the example shows in comments is valid as well: the fleet's templates, and
// of grants each key for its kind.
func TestExamplesCommentsAreValid(t *testing.T) {
	text, err := os.ReadFile("../../podlane.example.toml")
	if err != nil {
		t.Fatal(err)
	}
	uncommented := regexp.MustCompile(`(?m)^# (\[\[\w+\]\]|[a-z_]+ = )`).ReplaceAllString(string(text), "$1")
	withVault := strings.Replace(uncommented, "[vault]\n", "[vault]\n\"address\" = \"https://vault.example.com\"\n", 1)
	withVault = strings.Replace(withVault, "\naddress = \"\"\n", "\n", 1)
	// Beside the fleet's own file, whose templates it names.
	const fleetFile = "../../examples/fleet/podlane.toml"
	got, err := Parse(fleetFile, withVault)
	if err == nil {
		t.Error("the example's grant is of one kind; it is to show the keys of all")
	} else {
		for line := range strings.Lines(err.Error()) {
			if !strings.Contains(line, "expected nothing: this key means nothing to kind kubeconfig") {
				t.Error(line)
			}
		}
	}
	fleet, err := Load(fleetFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fleet.PodTemplates, got.PodTemplates); diff != "" {
		t.Errorf("the example's templates are not the fleet's (-fleet +example):\n%s", diff)
	}
	if len(got.Grants) != 1 || len(got.PodTemplates) != 4 {
		t.Errorf("found %d grants and %d templates", len(got.Grants), len(got.PodTemplates))
	}
}

// leaves returns the toml names of all settings that are not tables of ours.
func leaves(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			names = append(names, leaves(f.Type.Elem())...)
			continue
		}
		if f.Type.Kind() == reflect.Struct {
			names = append(names, leaves(f.Type)...)
			continue
		}
		if name := f.Tag.Get("toml"); name != "-" {
			names = append(names, name)
		}
	}
	return names
}
