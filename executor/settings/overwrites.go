package settings

import (
	"regexp"
)

// Overwrites are what jobs may set with variables, which have the names of
// GitLab's own Kubernetes executor: docs/job-settings.md. Empty means that a
// variable has no effect.
type Overwrites struct {
	// Regular expressions that the whole value must match.
	Namespace      string `toml:"namespace"`
	ServiceAccount string `toml:"service_account"`
	// Of "key=value", "key=value:effect" for tolerations.
	NodeSelector    string `toml:"node_selector"`
	NodeTolerations string `toml:"node_tolerations"`
	PodLabels       string `toml:"pod_labels"`
	PodAnnotations  string `toml:"pod_annotations"`

	// The most that a job may ask for.
	Build   Container    `toml:"build"`
	Helper  Container    `toml:"helper"`
	Service Container    `toml:"service"`
	Pod     PodResources `toml:"pod"`
}

// PodResources are requests and limits that a pod's containers share, as
// Kubernetes quantities; empty means none. Kubernetes knows them since 1.34.
type PodResources struct {
	CPURequest    string `toml:"cpu_request"`
	CPULimit      string `toml:"cpu_limit"`
	MemoryRequest string `toml:"memory_request"`
	MemoryLimit   string `toml:"memory_limit"`
}

// Container returns them as a container's.
func (r PodResources) Container() Container {
	return Container{CPURequest: r.CPURequest, CPULimit: r.CPULimit, MemoryRequest: r.MemoryRequest, MemoryLimit: r.MemoryLimit}
}

// Whole compiles a regular expression that must match a whole value.
func Whole(expression string) (*regexp.Regexp, error) {
	return regexp.Compile(`^(?:` + expression + `)$`)
}

func (o *Overwrites) check(c checker) {
	for _, e := range []struct{ key, value string }{
		{"namespace", o.Namespace},
		{"service_account", o.ServiceAccount},
		{"node_selector", o.NodeSelector},
		{"node_tolerations", o.NodeTolerations},
		{"pod_labels", o.PodLabels},
		{"pod_annotations", o.PodAnnotations},
	} {
		_, err := Whole(e.value)
		c.must(err == nil, "overwrites."+e.key, e.value, "a regular expression in the syntax of RE2")
	}
	c.quantities("overwrites.build", o.Build)
	c.quantities("overwrites.helper", o.Helper)
	c.quantities("overwrites.service", o.Service)
	c.quantities("overwrites.pod", o.Pod.Container())
}

// quantities checks one table of requests and limits.
func (c checker) quantities(table string, r Container) {
	for _, q := range []struct{ key, value string }{
		{"cpu_request", r.CPURequest},
		{"cpu_limit", r.CPULimit},
		{"memory_request", r.MemoryRequest},
		{"memory_limit", r.MemoryLimit},
		{"ephemeral_storage_request", r.EphemeralStorageRequest},
		{"ephemeral_storage_limit", r.EphemeralStorageLimit},
	} {
		c.must(q.value == "" || quantity.MatchString(q.value), table+"."+q.key, q.value, `a quantity such as "500m" or "512Mi"`)
	}
}
