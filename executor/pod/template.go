package pod

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// ServiceContainer is the name under which a template speaks of every service's
// container. Any other name than it and our own two is a sidecar's.
const ServiceContainer = "service"

// podTemplate is what settings say about a job's pod: the template of all jobs
// and above it the job's own.
func podTemplate(job *gitlab.Job, s *settings.Settings) (*corev1.PodTemplateSpec, error) {
	base, err := parseTemplate("kubernetes.pod_template", s.Kubernetes.PodTemplateFile, s.Kubernetes.PodTemplate)
	if err != nil {
		return nil, err
	}
	named, err := chooseTemplate(job, s)
	if err != nil || named == nil {
		return base, err
	}
	own, err := parseTemplate("pod_templates "+named.Name, named.File, named.Template)
	if err != nil {
		return nil, err
	}
	return overlay(base, own), nil
}

// chooseTemplate returns the template that the job asks for, else the first
// that it gets without asking, else nil.
func chooseTemplate(job *gitlab.Job, s *settings.Settings) (*settings.PodTemplate, error) {
	wanted := job.Variables.Expand(job.Variables.Get(settings.TemplateVariable))
	protected := job.GitInfo.Protected != nil && *job.GitInfo.Protected
	var offered []string
	for i := range s.PodTemplates {
		t := &s.PodTemplates[i]
		if !t.Fits(job.JobInfo.ProjectID, protected) {
			continue
		}
		if t.Name == wanted || wanted == "" && !t.OnRequest {
			return t, nil
		}
		offered = append(offered, t.Name)
	}
	if wanted == "" {
		return nil, nil
	}
	if len(offered) == 0 {
		return nil, fmt.Errorf("%s is %q: this job may have none of the runner's pod templates", settings.TemplateVariable, wanted)
	}
	return nil, fmt.Errorf("%s is %q: expected one of %s, which this job may have", settings.TemplateVariable, wanted, strings.Join(offered, ", "))
}

// parseTemplate reads a PodTemplateSpec strictly. An error is the fault of
// whoever wrote the settings.
func parseTemplate(where, file, text string) (*corev1.PodTemplateSpec, error) {
	if text == "" {
		return nil, nil
	}
	if file != "" {
		where = file + " of " + where
	}
	bad := func(format string, args ...any) error {
		return &Failure{Reason: "invalid pod template", Detail: where + ": " + fmt.Sprintf(format, args...)}
	}
	t := &corev1.PodTemplateSpec{}
	if err := yaml.UnmarshalStrict([]byte(text), t); err != nil {
		return nil, bad("%s", templateMistake(err))
	}
	if t.Spec.RestartPolicy != "" && t.Spec.RestartPolicy != corev1.RestartPolicyNever {
		return nil, bad("found spec.restartPolicy %s, expected Never: a job's script runs once", t.Spec.RestartPolicy)
	}
	for _, c := range t.Spec.Containers {
		ours := c.Name == BuildContainer || c.Name == HelperContainer || c.Name == ServiceContainer
		switch {
		case strings.HasPrefix(c.Name, "svc-"):
			return nil, bad("found a container %s, expected the name %q, which stands for all services", c.Name, ServiceContainer)
		case !ours && c.Image == "":
			return nil, bad("container %q has no image; only %s, %s and %s get theirs from podlane", c.Name, BuildContainer, HelperContainer, ServiceContainer)
		}
	}
	// What only a pod that exists has.
	t.Name, t.Namespace, t.GenerateName = "", "", ""
	return t, nil
}

// wrongType is how the decoder tells of a value of the wrong kind, in words of
// Go's.
var wrongType = regexp.MustCompile(`cannot unmarshal (\w+)(?: \S+)? into Go (?:struct field \w+\.(\S+)|value) of type (\S+)`)

// templateMistake says what is wrong with a template in words of YAML's.
func templateMistake(err error) string {
	const whole = "a PodTemplateSpec: metadata and spec"
	message := err.Error()
	for _, prefix := range []string{"error unmarshaling JSON: while decoding JSON: ", "error converting YAML to JSON: ", "json: "} {
		message = strings.TrimPrefix(message, prefix)
	}
	message = strings.Join(strings.Fields(message), " ") // some have several lines
	m := wrongType.FindStringSubmatch(message)
	switch {
	case m == nil && strings.HasPrefix(message, "quantities must match"):
		return `found a quantity that is none, expected one such as "500m" or "512Mi"`
	case m == nil:
		return message + "; expected " + whole
	}
	found := map[string]string{"object": "a table", "array": "a list", "string": "a text", "bool": "true or false"}[m[1]]
	if found == "" {
		found = "a " + m[1]
	}
	// Structs inside of structs have names that no YAML has.
	path := slices.DeleteFunc(strings.Split(m[2], "."), func(name string) bool { return name == "" || unicode.IsUpper(rune(name[0])) })
	if len(path) == 0 {
		return fmt.Sprintf("found %s, expected %s", found, whole)
	}
	return fmt.Sprintf("%s: found %s, expected %s", strings.Join(path, "."), found, kindOf(m[3]))
}

// kindOf is the kind of value in YAML for a type of Go's.
func kindOf(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "int"):
		return "a whole number"
	case goType == "string":
		return "a text"
	}
	return "a table"
}

// checkMounts finds mounts of volumes that are not there: the API server would
// refuse the pod, but only at the first job.
func checkMounts(spec *corev1.PodSpec) error {
	var volumes []string
	for _, v := range spec.Volumes {
		volumes = append(volumes, v.Name)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, m := range c.VolumeMounts {
			if !slices.Contains(volumes, m.Name) {
				return &Failure{Reason: "invalid pod template", Detail: fmt.Sprintf("container %s mounts the volume %q, expected one of %s", c.Name, m.Name, strings.Join(volumes, ", "))}
			}
		}
	}
	return nil
}

// forServices puts a container for each service in the place of the template's
// one.
func forServices(t *corev1.PodTemplateSpec, services []Service) *corev1.PodTemplateSpec {
	if t == nil {
		return nil
	}
	t = t.DeepCopy()
	at := slices.IndexFunc(t.Spec.Containers, func(c corev1.Container) bool { return c.Name == ServiceContainer })
	if at < 0 {
		return t
	}
	pattern := t.Spec.Containers[at]
	t.Spec.Containers = slices.Delete(t.Spec.Containers, at, at+1)
	for _, svc := range services {
		c := pattern.DeepCopy()
		c.Name = svc.Container
		t.Spec.Containers = append(t.Spec.Containers, *c)
	}
	return t
}

// order brings containers into the order in which the kubelet shall start them:
// ours first, of those the helper, because the build container waits for what it
// brings.
func order(containers []corev1.Container) {
	rank := func(c corev1.Container) int {
		switch {
		case c.Name == HelperContainer:
			return 0
		case c.Name == BuildContainer:
			return 1
		case strings.HasPrefix(c.Name, "svc-"):
			return 2
		}
		return 3
	}
	slices.SortStableFunc(containers, func(a, b corev1.Container) int { return rank(a) - rank(b) })
}
