package pod

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// Namespace is where the job's pod lives. It is the same in every stage. An
// error is the job author's.
func Namespace(job *gitlab.Job, s *settings.Settings) (string, error) {
	own, allowed, err := namespaceOverwrite(job, s)
	if err != nil {
		return "", err
	}
	if allowed {
		return own, nil
	}
	scope := "unprotected"
	if job.GitInfo.Protected != nil && *job.GitInfo.Protected {
		scope = "protected"
	}
	return settings.Fill(s.Kubernetes.Namespace, map[string]string{
		"job_id":      strconv.FormatInt(job.ID, 10),
		"pipeline_id": strconv.FormatInt(job.JobInfo.PipelineID, 10),
		"project_id":  strconv.FormatInt(job.JobInfo.ProjectID, 10),
		"scope":       scope,
	})
}

// OwnsNamespace tells whether the namespace is made for this job alone.
func OwnsNamespace(job *gitlab.Job, s *settings.Settings) bool {
	_, overwritten, err := namespaceOverwrite(job, s)
	return s.Kubernetes.NamespacePerJob && !overwritten && err == nil
}

// namespaceOverwrite returns the namespace that a job asks for, and whether it
// may.
func namespaceOverwrite(job *gitlab.Job, s *settings.Settings) (name string, allowed bool, err error) {
	name = variable(job.Variables, varNamespace)
	if name == "" || s.Overwrites.Namespace == "" {
		return name, false, nil
	}
	if err := matchWhole(varNamespace, name, "overwrites.namespace", s.Overwrites.Namespace); err != nil {
		return name, false, err
	}
	if len(validation.IsDNS1123Label(name)) > 0 {
		return name, false, fmt.Errorf("%s is %q: expected the name of a namespace", varNamespace, name)
	}
	return name, true, nil
}

// ownNamespace plans the job's own namespace.
func ownNamespace(meta metav1.ObjectMeta) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: meta.Namespace, Labels: meta.Labels, Annotations: meta.Annotations}}
}
