package pod

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"podlane/executor/settings"
)

// resources turns settings, whose quantities have been checked, into a spec.
func resources(c settings.Container) corev1.ResourceRequirements {
	set := func(list *corev1.ResourceList, name corev1.ResourceName, value string) {
		if value == "" {
			return
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = resource.MustParse(value)
	}
	var r corev1.ResourceRequirements
	set(&r.Requests, corev1.ResourceCPU, c.CPURequest)
	set(&r.Requests, corev1.ResourceMemory, c.MemoryRequest)
	set(&r.Requests, corev1.ResourceEphemeralStorage, c.EphemeralStorageRequest)
	set(&r.Limits, corev1.ResourceCPU, c.CPULimit)
	set(&r.Limits, corev1.ResourceMemory, c.MemoryLimit)
	set(&r.Limits, corev1.ResourceEphemeralStorage, c.EphemeralStorageLimit)
	return r
}

// allot combines a container's defaults, its template and what the job asks
// for. A limit below a request that nobody has asked for lowers the request.
func allot(what string, defaults, template corev1.ResourceRequirements, asked settings.Container) (corev1.ResourceRequirements, error) {
	own := resources(asked)
	r := template
	r.Requests = join(defaults.Requests, template.Requests, own.Requests)
	r.Limits = join(defaults.Limits, template.Limits, own.Limits)
	for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
		limit := r.Limits[name]
		request, has := r.Requests[name]
		if !has || request.Cmp(limit) <= 0 {
			continue
		}
		if _, explicit := own.Requests[name]; explicit {
			return r, fmt.Errorf("the job asks for %s of %s for %s, more than the limit of %s", request.String(), name, what, limit.String())
		}
		r.Requests[name] = limit
	}
	return r, nil
}

func join(lists ...corev1.ResourceList) corev1.ResourceList {
	var out corev1.ResourceList
	for _, list := range lists {
		if out == nil && len(list) > 0 {
			out = corev1.ResourceList{}
		}
		maps.Copy(out, list)
	}
	return out
}
