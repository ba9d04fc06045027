package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// disruptions are the reasons of the condition DisruptionTarget in words
// (https://kubernetes.io/docs/concepts/workloads/pods/disruptions/).
var disruptions = map[string]string{
	corev1.PodReasonPreemptionByScheduler: "preempted by a pod of higher priority",
	"DeletionByTaintManager":              "its node has a taint that the pod does not tolerate: it is unreachable, or being taken away",
	"EvictionByEvictionAPI":               "evicted: its node is being drained",
	"DeletionByPodGC":                     "its node is gone",
	corev1.PodReasonTerminationByKubelet:  "ended by its node, which runs out of a resource or shuts down",
}

// disruptionOf says why the cluster ends a pod, or "".
func disruptionOf(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type != corev1.DisruptionTarget || c.Status != corev1.ConditionTrue {
			continue
		}
		why, known := disruptions[c.Reason]
		if !known {
			why = c.Reason
		}
		if c.Message != "" {
			why += " (" + strings.TrimSpace(c.Message) + ")"
		}
		return why
	}
	return ""
}

// whyLeaving says why the cluster ends a pod, be it by somebody's order, or "".
func whyLeaving(p *corev1.Pod) string {
	if why := disruptionOf(p); why != "" {
		return why
	}
	if p.DeletionTimestamp != nil {
		return "it was deleted"
	}
	return ""
}

// lastWords are events that say why a pod was ended.
var lastWords = []string{"Evicted", "Preempted", "Preempting", "TaintManagerEviction", "NodeShutdown", "Terminated", "ExceededGracePeriod", "NodeNotReady"}

func isLastWord(reason string) bool { return slices.Contains(lastWords, reason) }

// tellsItself are warnings that are told in another way.
var tellsItself = []string{"FailedScheduling", "Failed", "BackOff", "Unhealthy"}

// lastStates describes how each container of a pod was last, a line each.
func lastStates(p *corev1.Pod) []string {
	var lines []string
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		state := "never started"
		switch {
		case s.State.Running != nil:
			state = "was running"
		case s.State.Terminated != nil:
			state = endedHow(s.State.Terminated)
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			state = "was waiting: " + s.State.Waiting.Reason
		}
		if s.State.Terminated == nil && s.LastTerminationState.Terminated != nil {
			state += ", and before that " + endedHow(s.LastTerminationState.Terminated)
		}
		lines = append(lines, fmt.Sprintf("container %s %s", s.Name, state))
	}
	return lines
}

// reasonOOM is the kubelet's word for a container that the kernel has killed.
const reasonOOM = "OOMKilled"

// outOfMemory judges a container that the kernel has killed.
func outOfMemory(p *corev1.Pod, container string) *Failure {
	detail := "container " + container + " " + ranOutOfMemory(p, container)
	if memoryLimit(p, container) != "" {
		detail += "; hint: docs/job-settings.md says how to get more"
	}
	return &Failure{Reason: "out of memory", Container: container, Detail: detail}
}

// ranOutOfMemory tells limit and usage, which are the same where there is a limit.
func ranOutOfMemory(p *corev1.Pod, container string) string {
	if limit := memoryLimit(p, container); limit != "" {
		return "was killed when it had used all of its limit of " + limit
	}
	return "was killed; it has no limit, so its node ran out of memory"
}

// memoryLimit is a container's, or that of the pod, or "".
func memoryLimit(p *corev1.Pod, container string) string {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if q, ok := c.Resources.Limits[corev1.ResourceMemory]; ok && c.Name == container {
			return q.String()
		}
	}
	if p.Spec.Resources != nil {
		if q, ok := p.Spec.Resources.Limits[corev1.ResourceMemory]; ok {
			return q.String() + " for the whole pod"
		}
	}
	return ""
}
