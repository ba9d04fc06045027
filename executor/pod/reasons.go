package pod

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Fault says who can mend a failure: its answer decides between a build
// failure, which is never retried, and a system failure, which is.
type Fault string

const (
	// FaultJob is the job author's to mend.
	FaultJob Fault = "job"
	// FaultSystem is everybody else's.
	FaultSystem Fault = "system"
)

// Reason is one way in which a pod fails to come or goes away.
type Reason struct {
	Name  string
	Fault Fault
	// Means is for docs/failures.md.
	Means string
}

// Reasons is the table of all of them; docs/failures.md shows it.
var Reasons = []Reason{
	{"image not found", FaultJob, "the registry has no such image or tag"},
	{"image pull denied", FaultJob, "the registry refuses the image to the credentials of this job"},
	{"invalid image name", FaultJob, "the image's name cannot be parsed"},
	{"no shell in image", FaultJob, "the job's image has no sh"},
	{"service failed", FaultJob, "a service with HEALTHCHECK_TCP_PORT ended or did not answer in time"},
	{"invalid service", FaultJob, "a service's container cannot be started: its entrypoint is not in the image, say"},
	{"image pull failed", FaultSystem, "pulling failed for another reason, a network or registry that is down, for longer than job.pull_timeout"},
	{"not started in time", FaultSystem, "the pod did not start within job.start_timeout or the job's timeout: no node had room, say"},
	{"quota exceeded", FaultSystem, "the namespace's quota leaves no room for the pod"},
	{"forbidden", FaultSystem, "podlane's own account may not do what it must, or a policy of the cluster refuses the pod"},
	{"invalid pod template", FaultSystem, "the settings of podlane have a pod template that is no PodTemplateSpec"},
	{"rejected", FaultSystem, "the API server finds the pod invalid, or its service account does not exist"},
	{"container not created", FaultSystem, "the node cannot create a container: a secret is missing, say"},
	{"pod lost", FaultSystem, "the pod was deleted, evicted, preempted, or its node went away"},
	{"out of memory", FaultSystem, "the kernel killed a container that reached its limit, or whose node had no memory left"},
	{"out of processes", FaultSystem, "git or a stage of artifacts could start no process: the pod has as many as its node allows"},
	{"disk full", FaultSystem, "a volume of the pod had no room for the checkout or for artifacts"},
	{"container ended", FaultSystem, "a container of the pod ended while the job still needed it"},
	{"job is alive", FaultSystem, "another process of the runner follows a stage of this very job: its pod is not replaced"},
	{"deadline exceeded", FaultSystem, "the pod outlived the job's timeout by five minutes"},
}

// Failure is a reason in a particular case.
type Failure struct {
	Reason string
	// Detail is one line: what was found, and a hint where there is one.
	Detail string
	// Container is the one that the failure is about, if it is one.
	Container string
	Err       error
}

// Error names the reason and the case.
func (f *Failure) Error() string {
	if f.Detail == "" {
		return f.Reason
	}
	return f.Reason + ": " + f.Detail
}

// Unwrap returns the error behind the failure, if there is one.
func (f *Failure) Unwrap() error { return f.Err }

// Fault looks the reason up. A reason that isn't in the table is the system's.
func (f *Failure) Fault() Fault {
	for _, r := range Reasons {
		if r.Name == f.Reason {
			return r.Fault
		}
	}
	return FaultSystem
}

// refusal explains why the API server refused to create something.
func refusal(err error) error {
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota"):
		return &Failure{Reason: "quota exceeded", Detail: statusMessage(err), Err: err}
	case isAccountMissing(err):
		return &Failure{Reason: "rejected", Detail: statusMessage(err) + "; hint: pod.service_account in the settings of podlane names it", Err: err}
	case apierrors.IsForbidden(err):
		return &Failure{Reason: "forbidden", Detail: statusMessage(err), Err: err}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err):
		return &Failure{Reason: "rejected", Detail: statusMessage(err), Err: err}
	}
	return err
}

func statusMessage(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status().Message
	}
	return err.Error()
}

var (
	// What registries and containerd say; each was seen with a real registry.
	notFoundText = regexp.MustCompile(`(?i)\bnot found\b|manifest unknown|name unknown|does not exist|no such image`)
	deniedText   = regexp.MustCompile(`(?i)unauthorized|authorization failed|access denied|\bdenied\b|forbidden|authentication required|no basic auth|401|403`)
	// passing are failures that mention neither, or mention them by accident.
	passingText = regexp.MustCompile(`(?i)no such host|connection refused|i/o timeout|toomanyrequests|too many requests|TLS handshake|50[0-4] `)
	noShellText = regexp.MustCompile(`(?i)"?sh"?: (executable file not found|no such file or directory|not found)`)
)

// pullFailure classifies the kubelet's message about an image. It returns nil
// for a failure that may pass.
func pullFailure(image, message string) *Failure {
	message = shortPullMessage(message)
	switch {
	case passingText.MatchString(message):
		return nil
	// A registry that denies often adds that the repository may not exist.
	case deniedText.MatchString(message):
		return &Failure{Reason: "image pull denied", Detail: fmt.Sprintf("%s: %s; hint: does the job have credentials for this registry, for instance in DOCKER_AUTH_CONFIG?", image, message)}
	case notFoundText.MatchString(message):
		return &Failure{Reason: "image not found", Detail: fmt.Sprintf("%s: %s", image, message)}
	}
	return nil
}

// shortPullMessage leaves out what containerd's message says two or three
// times over.
func shortPullMessage(message string) string {
	message = strings.TrimPrefix(message, "rpc error: ")
	if _, rest, ok := strings.Cut(message, "desc = "); ok {
		message = rest
	}
	if at := strings.LastIndex(message, "failed to resolve reference"); at > 0 {
		message = message[at:]
	}
	return message
}

// waitingFailure judges a container that waits to be started; nil means that
// it may still come.
func waitingFailure(container, image string, w *corev1.ContainerStateWaiting) *Failure {
	switch w.Reason {
	case "InvalidImageName":
		return &Failure{Reason: "invalid image name", Detail: fmt.Sprintf("%q", image)}
	case "ErrImagePull", "ImagePullBackOff":
		return pullFailure(image, w.Message)
	case "ErrImageNeverPull":
		return &Failure{Reason: "image not found", Detail: image + " is not on the node, and pod.pull_policy is Never"}
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		return &Failure{Reason: "container not created", Detail: container + ": " + w.Message}
	}
	return nil
}

// endedFailure judges a container that has ended although the job needs it.
func endedFailure(container, image string, t *corev1.ContainerStateTerminated) *Failure {
	if t.Reason == "StartError" || t.Reason == "ContainerCannotRun" {
		if container == BuildContainer && noShellText.MatchString(t.Message) {
			return &Failure{Reason: "no shell in image", Detail: image + " has neither bash nor sh in its PATH; podlane needs one to run the job's script"}
		}
		if container != BuildContainer && container != HelperContainer {
			return &Failure{Reason: "invalid service", Detail: fmt.Sprintf("%s: %s", image, t.Message)}
		}
		return &Failure{Reason: "container not created", Detail: fmt.Sprintf("%s: %s", container, t.Message)}
	}
	return &Failure{Reason: "container ended", Detail: container + " " + endedHow(t)}
}

// endedHow describes a container's end: "was OOMKilled", "ended with exit code 1".
func endedHow(t *corev1.ContainerStateTerminated) string {
	how := fmt.Sprintf("ended with exit code %d", t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" && t.Reason != "Completed" {
		how += " (" + t.Reason + ")"
	}
	if t.Message != "" {
		how += ": " + strings.TrimSpace(t.Message)
	}
	return how
}

// Lost says why a pod can't run the job any more, or nil if it can. A pod that
// the cluster ends still can for its grace period: the container that has
// nothing to do goes at once, with code 0, and the other one when it is done.
func Lost(pod *corev1.Pod) *Failure {
	if pod.Status.Reason == "DeadlineExceeded" {
		return &Failure{Reason: "deadline exceeded", Detail: pod.Status.Message}
	}
	// A container that ran out of memory says more than the pod that ended with it.
	for _, s := range pod.Status.ContainerStatuses {
		if t := s.State.Terminated; isOurs(s.Name) && t != nil && t.Reason == reasonOOM && t.ExitCode != 0 {
			return outOfMemory(pod, s.Name)
		}
	}
	if pod.Status.Reason != "" && pod.Status.Phase == corev1.PodFailed {
		return &Failure{Reason: "pod lost", Detail: pod.Status.Reason + ": " + strings.TrimSpace(pod.Status.Message)}
	}
	_, over := endOf(pod)
	leaving := whyLeaving(pod)
	for _, s := range pod.Status.ContainerStatuses {
		switch t := s.State.Terminated; {
		case !isOurs(s.Name) || t == nil || leaving != "" && t.ExitCode == 0:
		case leaving != "":
			return &Failure{Reason: "pod lost", Detail: leaving}
		default:
			return endedFailure(s.Name, s.Image, t)
		}
	}
	switch {
	case over && leaving != "":
		return &Failure{Reason: "pod lost", Detail: leaving}
	case over:
		return &Failure{Reason: "pod lost", Detail: "the pod has ended" + initEnd(pod)}
	}
	return nil
}

func isOurs(container string) bool {
	return container == BuildContainer || container == HelperContainer
}

// initEnd names the init container that kept a pod from starting.
func initEnd(pod *corev1.Pod) string {
	for _, s := range pod.Status.InitContainerStatuses {
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			return ": init container " + s.Name + " " + endedHow(t)
		}
	}
	return ""
}

// Doomed says why a pod that has not begun its job never will, or nil.
func Doomed(pod *corev1.Pod) *Failure {
	if f := Lost(pod); f != nil {
		return f
	}
	if pod.DeletionTimestamp == nil {
		return nil
	}
	if why := disruptionOf(pod); why != "" {
		return &Failure{Reason: "pod lost", Detail: why}
	}
	return &Failure{Reason: "pod lost", Detail: "the pod is being deleted"}
}
