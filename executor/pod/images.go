package pod

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// jobImage returns the expanded name of the image that the job's script runs in.
func jobImage(job *gitlab.Job, s *settings.Settings) (string, error) {
	image := job.Variables.Expand(job.Image.Name)
	switch {
	case image == "" && s.Job.Image == "":
		return "", ErrNoImage
	case image == "" || image == s.Job.Image:
		return s.Job.Image, nil
	case !settings.Matches(s.Images.AllowedImages, image):
		return "", notAllowed("image", image, "images.allowed_images", s.Images.AllowedImages)
	}
	return image, nil
}

func allowedServices(services []Service, s *settings.Settings) error {
	for _, svc := range services {
		if !settings.Matches(s.Images.AllowedServices, svc.Image) {
			return notAllowed("service", svc.Image, "images.allowed_services", s.Images.AllowedServices)
		}
	}
	return nil
}

func notAllowed(what, image, key string, globs []string) error {
	return fmt.Errorf("%s %s is not allowed here: %s in the settings of podlane allows %s", what, image, key, strings.Join(globs, ", "))
}

// gitlabPullPolicies are GitLab's names of pull policies, as jobs write them.
// https://docs.gitlab.com/ci/yaml/#imagepull_policy
var gitlabPullPolicies = map[string]string{"always": "Always", "if-not-present": "IfNotPresent", "never": "Never"}

// pullPolicies returns the policies to try for an image, in order.
func pullPolicies(image string, asked []string, s *settings.Settings) ([]corev1.PullPolicy, error) {
	var out []corev1.PullPolicy
	if len(asked) == 0 {
		for _, p := range s.Pod.PullPolicy {
			out = append(out, corev1.PullPolicy(p))
		}
		return out, nil
	}
	for _, name := range asked {
		policy, known := gitlabPullPolicies[name]
		if !known {
			return nil, fmt.Errorf("pull_policy of image %s is %q: expected always, if-not-present or never", image, name)
		}
		if slices.Contains(s.Pod.PullPolicy, policy) || slices.Contains(s.Images.AllowedPullPolicies, policy) {
			out = append(out, corev1.PullPolicy(policy))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("pull_policy of image %s is %s: images.allowed_pull_policies in the settings of podlane allows none of these", image, strings.Join(asked, ", "))
	}
	return out, nil
}

// entrypoint returns what the image is started with, before the shell that
// waits for podlane-helper. One that is a shell itself adds nothing.
func entrypoint(image gitlab.Image) []string {
	if len(image.Entrypoint) == 0 || image.Entrypoint[0] == "" {
		return nil
	}
	switch path.Base(image.Entrypoint[0]) {
	case "sh", "bash", "ash", "dash":
		return nil
	}
	return image.Entrypoint
}

// runAs returns the user that the job wants its image to run as, or nil.
func runAs(job *gitlab.Job, s *settings.Settings) (*corev1.SecurityContext, error) {
	options := job.Image.ExecutorOpts
	user := options.Kubernetes.User
	if user == "" {
		user = options.Docker.User
	}
	text := job.Variables.Expand(string(user))
	if text == "" {
		return nil, nil
	}
	uid, gid, err := settings.ParseUser(text)
	if err != nil {
		return nil, fmt.Errorf("the user of image: %w", err)
	}
	if len(s.Images.AllowedUsers) > 0 && !slices.Contains(s.Images.AllowedUsers, uid) {
		return nil, fmt.Errorf("the user of image is %d: images.allowed_users in the settings of podlane does not allow that", uid)
	}
	if gid != nil && len(s.Images.AllowedGroups) > 0 && !slices.Contains(s.Images.AllowedGroups, *gid) {
		return nil, fmt.Errorf("the group of image is %d: images.allowed_groups in the settings of podlane does not allow that", *gid)
	}
	return &corev1.SecurityContext{RunAsUser: &uid, RunAsGroup: gid}, nil
}

// asUser is the layer with the build container's user. A user that a template
// names, for the container or for the whole pod, counts before the job's.
func asUser(user *corev1.SecurityContext, template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	if user == nil || template != nil && namesUser(template.Spec) {
		return nil
	}
	return &corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: BuildContainer, SecurityContext: user}}}}
}

func namesUser(spec corev1.PodSpec) bool {
	for _, c := range spec.Containers {
		if c.Name == BuildContainer && c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
			return true
		}
	}
	return spec.SecurityContext != nil && spec.SecurityContext.RunAsUser != nil
}

// placeOnArch makes a pod whose image is for one architecture run on such a
// node, and returns the architecture that the helper image must have.
func placeOnArch(job *gitlab.Job, spec *corev1.PodSpec) (string, error) {
	selected := spec.NodeSelector[corev1.LabelArchStable]
	platform := job.Variables.Expand(job.Image.ExecutorOpts.Docker.Platform)
	if platform == "" {
		if selected == "" {
			return runtime.GOARCH, nil
		}
		return selected, nil
	}
	// os/arch or os/arch/variant
	parts := strings.Split(platform, "/")
	if len(parts) < 2 || parts[0] != "linux" || parts[1] == "" {
		return "", fmt.Errorf("the platform of image is %q: expected linux/amd64, linux/arm64 or the like", platform)
	}
	if selected != "" && selected != parts[1] {
		return "", fmt.Errorf("the platform of image is %q, but the job's nodes are %s", platform, selected)
	}
	if spec.NodeSelector == nil {
		spec.NodeSelector = map[string]string{}
	}
	spec.NodeSelector[corev1.LabelArchStable] = parts[1]
	return parts[1], nil
}
