package settings

import (
	"slices"
	"strings"
)

// NamespaceFacts are the Placeholders that kubernetes.namespace may hold: those
// that every job has, before any id_token has been checked.
var NamespaceFacts = []string{"job_id", "pipeline_id", "project_id", "scope"}

func (s *Settings) checkNamespace(c checker) {
	pattern := s.Kubernetes.Namespace
	sample := map[string]string{}
	for _, fact := range NamespaceFacts {
		sample[fact] = "1234567890"
	}
	for _, m := range placeholder.FindAllStringSubmatch(pattern, -1) {
		c.must(slices.Contains(NamespaceFacts, m[1]), "kubernetes.namespace", pattern, "placeholders out of {"+strings.Join(NamespaceFacts, "}, {")+"}")
		if !slices.Contains(NamespaceFacts, m[1]) {
			return
		}
	}
	name, err := Fill(pattern, sample)
	c.must(err == nil && dnsLabel.MatchString(name), "kubernetes.namespace", pattern, "the name of a namespace")
	// Only a namespace that no other job can be in may be deleted with a job.
	c.must(!s.Kubernetes.NamespacePerJob || strings.Contains(pattern, "{job_id}"), "kubernetes.namespace", pattern,
		"{job_id} in it, since kubernetes.namespace_per_job is set")
}
