package pod

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"podlane/executor/gitlab"
)

// Service is a service of the job, as it stands in the pod.
type Service struct {
	// Container is the name of its container: svc-0, svc-1, …
	Container string
	// Name is what the job's author calls it: its first alias, or its image.
	Name string
	// Image is the expanded image name.
	Image string
	// Hosts are the names under which the job reaches it, on 127.0.0.1.
	Hosts []string
	// Ports are waited for before the job starts: HEALTHCHECK_TCP_PORT.
	Ports []int
	// Command and Args replace the image's entrypoint and command.
	Command, Args []string
	// Env goes into the container through a secret.
	Env map[string]string
}

// healthPort is the variable with which a job asks us to wait for a service.
// https://docs.gitlab.com/runner/executors/kubernetes/#define-a-list-of-services
const healthPort = "HEALTHCHECK_TCP_PORT"

// Services plans the job's services. Errors are the job author's.
func Services(job *gitlab.Job) ([]Service, error) {
	var services []Service
	for i, s := range job.Services {
		vars := append(append(gitlab.Variables{}, job.Variables...), s.Variables...)
		svc := Service{
			Container: serviceContainerName(i),
			Image:     vars.Expand(s.Name),
			Command:   s.Entrypoint,
			Args:      s.Command,
			Env:       serviceEnv(job.Variables, s.Variables),
		}
		if svc.Image == "" {
			return nil, fmt.Errorf("service %d has no image name", i+1)
		}
		svc.Name = svc.Image
		aliases := strings.FieldsFunc(vars.Expand(s.Alias), func(r rune) bool { return r == ',' || r == ' ' })
		for _, alias := range aliases {
			if errs := validation.IsDNS1123Subdomain(alias); len(errs) > 0 {
				return nil, fmt.Errorf("service %s: alias %q is not a host name: expected lower-case letters, digits, '-' and '.'", svc.Image, alias)
			}
		}
		if len(aliases) > 0 {
			svc.Name = aliases[0]
		}
		svc.Hosts = append(imageHosts(svc.Image), aliases...)

		port, ok := s.Variables.Lookup(healthPort)
		if !ok {
			port = job.Variables.Get(healthPort)
		}
		ports, err := parsePorts(vars.Expand(port))
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", svc.Name, err)
		}
		svc.Ports = ports
		services = append(services, svc)
	}
	return services, nil
}

// imageHosts derives host names from an image's name as GitLab documents it:
// tag and registry port go, "/" becomes "-" (and "__", which no DNS name may
// hold, so that Kubernetes takes only the first).
// https://docs.gitlab.com/ci/services/#accessing-the-services
func imageHosts(image string) []string {
	name, _, _ := strings.Cut(image, "@")
	if at := strings.LastIndex(name, ":"); at > strings.LastIndex(name, "/") {
		name = name[:at]
	}
	parts := strings.Split(name, "/")
	parts[0], _, _ = strings.Cut(parts[0], ":")
	host := strings.Join(parts, "-")
	if len(validation.IsDNS1123Subdomain(host)) > 0 {
		return nil
	}
	return []string{host}
}

// serviceEnv is what GitLab gives a service: the job's public variables and
// the service's own (gitlab-runner common/build.go:2085). File variables stay
// out: their value is a content, and the service has no file of it.
func serviceEnv(job, own gitlab.Variables) map[string]string {
	env := map[string]string{}
	all := append(append(gitlab.Variables{}, job...), own...).Resolve()
	for _, v := range all {
		_, declared := own.Lookup(v.Key)
		if (v.Public && !v.File || declared) && isEnvName(v.Key) {
			env[v.Key] = v.Value
		}
	}
	return env
}

func isEnvName(s string) bool {
	for i, r := range s {
		switch {
		case r == '_', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

func parsePorts(s string) ([]int, error) {
	var ports []int
	for _, field := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }) {
		port, err := strconv.Atoi(field)
		if err != nil || port < 1 || port > 65535 {
			return nil, fmt.Errorf("%s is %q: expected a port from 1 to 65535", healthPort, s)
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// ReportService writes a line about a service that has ended, and its last
// lines of output.
func (c *Client) ReportService(ctx context.Context, pod *corev1.Pod, svc Service, t *corev1.ContainerStateTerminated) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	how := endedHow(t)
	if t.Reason == reasonOOM {
		how = ranOutOfMemory(pod, svc.Container)
	}
	text, err := c.Logs(ctx, pod.Name, svc.Container, 10, 16<<10)
	if err != nil || text == "" {
		c.log.Warnf("service %s %s, without output", svc.Name, how)
		return
	}
	c.log.Warnf("service %s %s; its last lines:", svc.Name, how)
	for scanner := bufio.NewScanner(strings.NewReader(text)); scanner.Scan(); {
		c.log.Linef("  %s", scanner.Text())
	}
}
