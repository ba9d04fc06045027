package pod

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// The parity page promises variables and fields of templates: each of them has
// an effect.
func TestParityPageKeepsItsPromises(t *testing.T) {
	const page = "../../docs/kubernetes-executor-parity.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (variable|template) \\| `([^`]+)`")
	promised := 0
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		promised++
		switch m[2] {
		case "variable":
			if !hasEffect(t, m[1]) {
				t.Errorf("the variable %s has no effect on a pod", m[1])
			}
		case "template":
			field := reflect.ValueOf(corev1.PodTemplateSpec{})
			for _, name := range strings.Split(m[3], ".") {
				if field = member(field, name); !field.IsValid() {
					t.Fatalf("%s: a template has no field %s", m[1], m[3])
				}
			}
		}
	}
	if promised < 40 {
		t.Errorf("found only %d promises in %s", promised, page)
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

// hasEffect tells whether a variable, or one of a family, changes the pod.
func hasEffect(t *testing.T, name string) bool {
	t.Helper()
	plan := func(vars ...gitlab.Variable) *corev1.Pod {
		job, s := testJob(), settings.Default()
		job.Services = []gitlab.Image{{Name: "postgres"}}
		job.Variables = append(job.Variables, vars...)
		allowEverything(&s)
		// A limit alone would lower the default request: that is an effect, too.
		m, err := Build(job, &s, "a")
		if err != nil {
			t.Fatalf("%v: %v", vars, err)
		}
		return m.Pod
	}
	for key, value := range everyOverwrite {
		if key == name || strings.HasSuffix(name, "_") && strings.HasPrefix(key, name) {
			return cmp.Diff(plan(), plan(gitlab.Variable{Key: key, Value: value})) != ""
		}
	}
	return false
}
