package pod

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// Variables with which jobs change their pod, where settings let them: the
// names of GitLab's own Kubernetes executor (gitlab-runner
// executors/kubernetes/overwrites.go). Families end in "_".
const (
	varNamespace       = "KUBERNETES_NAMESPACE_OVERWRITE"
	varServiceAccount  = "KUBERNETES_SERVICE_ACCOUNT_OVERWRITE"
	varBearerToken     = "KUBERNETES_BEARER_TOKEN" //nolint:gosec // the name of a variable
	varNodeSelector    = "KUBERNETES_NODE_SELECTOR_"
	varNodeTolerations = "KUBERNETES_NODE_TOLERATIONS_"
	varPodLabels       = "KUBERNETES_POD_LABELS_"
	varPodAnnotations  = "KUBERNETES_POD_ANNOTATIONS_"

	varBuild   = "KUBERNETES_"
	varHelper  = "KUBERNETES_HELPER_"
	varService = "KUBERNETES_SERVICE_"
	varPod     = "KUBERNETES_POD_"
)

// overwrites are what a job's variables change.
type overwrites struct {
	build, helper, pod settings.Container
	services           []settings.Container
	layer              corev1.PodTemplateSpec
	// tolerations are added: a layer's list would replace the template's.
	tolerations []corev1.Toleration
	// warnings are lines for the job log, one for each variable without effect.
	warnings []string
}

// readOverwrites takes what settings allow. An error is the job author's.
func readOverwrites(job *gitlab.Job, s *settings.Settings) (*overwrites, error) {
	vars := job.Variables.Resolve()
	if vars.Get(varBearerToken) != "" {
		return nil, fmt.Errorf("%s is set: podlane takes no credential for the cluster from a job; it has its own, and a job gets one for its deployment from a grant", varBearerToken)
	}
	o := &overwrites{}
	allowed := s.Overwrites
	if err := o.resources(vars, varBuild, "overwrites.build", allowed.Build, &o.build); err != nil {
		return nil, err
	}
	if err := o.resources(vars, varHelper, "overwrites.helper", allowed.Helper, &o.helper); err != nil {
		return nil, err
	}
	if err := o.resources(vars, varPod, "overwrites.pod", allowed.Pod.Container(), &o.pod); err != nil {
		return nil, err
	}
	for _, svc := range job.Services {
		// A service's own variables count before the job's.
		var own settings.Container
		all := append(append(gitlab.Variables{}, job.Variables...), svc.Variables...).Resolve()
		if err := o.resources(all, varService, "overwrites.service", allowed.Service, &own); err != nil {
			return nil, err
		}
		o.services = append(o.services, own)
	}
	if vars.Get(varNamespace) != "" && allowed.Namespace == "" {
		o.without(varNamespace, "overwrites.namespace")
	}
	return o, o.scheduling(vars, allowed)
}

func (o *overwrites) without(variable, key string) {
	line := fmt.Sprintf("%s has no effect: %s is not set in the settings of podlane", variable, key)
	for _, said := range o.warnings {
		if said == line {
			return
		}
	}
	o.warnings = append(o.warnings, line)
}

// resources reads one family of requests and limits.
func (o *overwrites) resources(vars gitlab.Variables, prefix, table string, most settings.Container, into *settings.Container) error {
	for _, r := range []struct {
		variable, key, most string
		into                *string
	}{
		{"CPU_REQUEST", "cpu_request", most.CPURequest, &into.CPURequest},
		{"CPU_LIMIT", "cpu_limit", most.CPULimit, &into.CPULimit},
		{"MEMORY_REQUEST", "memory_request", most.MemoryRequest, &into.MemoryRequest},
		{"MEMORY_LIMIT", "memory_limit", most.MemoryLimit, &into.MemoryLimit},
		{"EPHEMERAL_STORAGE_REQUEST", "ephemeral_storage_request", most.EphemeralStorageRequest, &into.EphemeralStorageRequest},
		{"EPHEMERAL_STORAGE_LIMIT", "ephemeral_storage_limit", most.EphemeralStorageLimit, &into.EphemeralStorageLimit},
	} {
		name, key := prefix+r.variable, table+"."+r.key
		value := vars.Get(name)
		if value == "" || prefix == varPod && strings.HasPrefix(r.key, "ephemeral") {
			continue
		}
		if r.most == "" {
			o.without(name, key)
			continue
		}
		wanted, err := resource.ParseQuantity(value)
		if err != nil || wanted.Sign() < 0 {
			return fmt.Errorf(`%s is %q: expected a quantity such as "500m" or "512Mi"`, name, value)
		}
		limit := resource.MustParse(r.most)
		if wanted.Cmp(limit) > 0 {
			return fmt.Errorf("%s is %s: more than %s, which %s in the settings of podlane allows", name, value, r.most, key)
		}
		*r.into = value
	}
	return nil
}

// scheduling reads the rest, in the order in which GitLab sent it.
func (o *overwrites) scheduling(vars gitlab.Variables, allowed settings.Overwrites) error {
	for _, v := range vars {
		if v.Value == "" && !strings.HasPrefix(v.Key, varNodeTolerations) {
			continue
		}
		for _, family := range []struct {
			prefix, key, allowed string
			take                 func(name, value string) error
		}{
			{varServiceAccount, "overwrites.service_account", allowed.ServiceAccount, o.serviceAccount},
			{varNodeSelector, "overwrites.node_selector", allowed.NodeSelector, o.nodeSelector},
			{varNodeTolerations, "overwrites.node_tolerations", allowed.NodeTolerations, o.toleration},
			{varPodLabels, "overwrites.pod_labels", allowed.PodLabels, o.label},
			{varPodAnnotations, "overwrites.pod_annotations", allowed.PodAnnotations, o.annotation},
		} {
			if v.Key != family.prefix && !(strings.HasSuffix(family.prefix, "_") && strings.HasPrefix(v.Key, family.prefix)) {
				continue
			}
			if family.allowed == "" {
				o.without(v.Key, family.key)
				continue
			}
			if err := matchWhole(v.Key, v.Value, family.key, family.allowed); err != nil {
				return err
			}
			if err := family.take(v.Key, v.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *overwrites) serviceAccount(name, value string) error {
	if len(validation.IsDNS1123Subdomain(value)) > 0 {
		return fmt.Errorf("%s is %q: expected the name of a service account", name, value)
	}
	o.layer.Spec.ServiceAccountName = value
	return nil
}

func (o *overwrites) nodeSelector(name, value string) error {
	return put(&o.layer.Spec.NodeSelector, name, value)
}

func (o *overwrites) label(name, value string) error {
	if strings.HasPrefix(value, "podlane/") || strings.HasPrefix(value, LabelManagedBy+"=") {
		return fmt.Errorf("%s is %q: labels that start with podlane/ are podlane's own", name, value)
	}
	return put(&o.layer.Labels, name, value)
}

// put adds "key=value" to labels.
func put(table *map[string]string, name, text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || len(validation.IsQualifiedName(key)) > 0 || len(validation.IsValidLabelValue(value)) > 0 {
		return fmt.Errorf("%s is %q: expected key=value, as labels have them", name, text)
	}
	if *table == nil {
		*table = map[string]string{}
	}
	(*table)[key] = value
	return nil
}

func (o *overwrites) annotation(name, text string) error {
	key, value, ok := strings.Cut(text, "=")
	if !ok || len(validation.IsQualifiedName(key)) > 0 || strings.HasPrefix(key, "podlane/") {
		return fmt.Errorf("%s is %q: expected key=value with the key of an annotation that is not podlane's own", name, text)
	}
	if o.layer.Annotations == nil {
		o.layer.Annotations = map[string]string{}
	}
	o.layer.Annotations[key] = value
	return nil
}

// toleration reads "key=value:effect", "key:effect", "key" or nothing, which
// tolerates every taint, as GitLab's executor does.
func (o *overwrites) toleration(name, text string) error {
	taint, effect, _ := strings.Cut(text, ":")
	key, value, equal := strings.Cut(taint, "=")
	t := corev1.Toleration{Key: key, Value: value, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffect(effect)}
	if equal {
		t.Operator = corev1.TolerationOpEqual
	}
	switch t.Effect {
	case "", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute:
	default:
		return fmt.Errorf("%s is %q: expected key=value:effect with NoSchedule, PreferNoSchedule or NoExecute for the effect", name, text)
	}
	if key != "" && len(validation.IsQualifiedName(key)) > 0 || len(validation.IsValidLabelValue(value)) > 0 {
		return fmt.Errorf("%s is %q: expected key=value:effect, as taints have them", name, text)
	}
	o.tolerations = append(o.tolerations, t)
	return nil
}

// matchWhole checks a value against the regular expression in settings.
func matchWhole(name, value, key, expression string) error {
	allowed, err := settings.Whole(expression)
	if err != nil {
		return fmt.Errorf("%s in the settings of podlane: %w", key, err)
	}
	if !allowed.MatchString(value) {
		return fmt.Errorf("%s is %q: %s in the settings of podlane allows %s", name, value, key, expression)
	}
	return nil
}

// variable returns a variable's value with references expanded.
func variable(vars gitlab.Variables, name string) string {
	for i := len(vars) - 1; i >= 0; i-- {
		if vars[i].Key == name {
			if vars[i].Raw {
				return vars[i].Value
			}
			return vars.Expand(vars[i].Value)
		}
	}
	return ""
}
