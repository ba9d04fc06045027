package pod

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"podlane/executor/settings"
)

// secure fills in what a template has left open. At the restricted level no
// container runs as root or keeps a capability.
func secure(spec *corev1.PodSpec, s settings.Security, restricted bool) {
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	pod := spec.SecurityContext
	if pod.SeccompProfile == nil {
		pod.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	if restricted {
		uid, gid, _ := settings.ParseUser(s.User) // checked when settings were read
		pod.RunAsNonRoot = new(true)
		if pod.RunAsUser == nil {
			pod.RunAsUser, pod.RunAsGroup = &uid, gid
		}
		s.Capabilities, s.AllowPrivilegeEscalation = nil, false
	}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			secureContainer(&containers[i], s)
		}
	}
	if restricted {
		alignHelper(spec)
	}
}

func secureContainer(c *corev1.Container, s settings.Security) {
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{}
	}
	sc := c.SecurityContext
	if sc.Privileged != nil && *sc.Privileged {
		return // it has everything; to take some of it away is an error to the API server
	}
	if sc.Capabilities == nil {
		sc.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
		for _, name := range s.Capabilities {
			sc.Capabilities.Add = append(sc.Capabilities.Add, corev1.Capability(name))
		}
	}
	// CAP_SYS_ADMIN is an escalation by itself: the API server wants it said.
	if sc.AllowPrivilegeEscalation == nil && !slices.Contains(sc.Capabilities.Add, "SYS_ADMIN") {
		sc.AllowPrivilegeEscalation = new(s.AllowPrivilegeEscalation)
	}
}

// alignHelper makes the helper container run as the build container's user.
// Without root it can't hand files over to another.
func alignHelper(spec *corev1.PodSpec) {
	var build, helper *corev1.Container
	for i := range spec.Containers {
		switch c := &spec.Containers[i]; c.Name {
		case BuildContainer:
			build = c
		case HelperContainer:
			helper = c
		}
	}
	if helper.SecurityContext.RunAsUser == nil {
		helper.SecurityContext.RunAsUser, helper.SecurityContext.RunAsGroup = build.SecurityContext.RunAsUser, build.SecurityContext.RunAsGroup
	}
	// The helper image knows no such user, and git wants a home.
	helper.Env = append(helper.Env, corev1.EnvVar{Name: "HOME", Value: stateDir})
}
