package pod

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podlane/executor/gitlab"
	"podlane/executor/settings"
)

// Names of the containers and places inside the pod.
const (
	BuildContainer  = "build"
	HelperContainer = "helper"

	sharedDir = "/podlane/shared"
	stateDir  = "/podlane/state"
	// grantsDir is podagent.GrantsDir: a test holds them together.
	grantsDir = "/podlane/grants"
	// AgentPath is where every container finds podlane-helper.
	AgentPath = sharedDir + "/bin/podlane-helper"
	// agentInImage is where a helper or agent image has it.
	agentInImage = "/usr/bin/podlane-helper"
)

// deadlineMargin is added to the job's timeout for the pod's own deadline: the
// runner ends the job first, the cluster only what the runner has forgotten.
const deadlineMargin = 5 * time.Minute

// Manifest is all that a job needs on the cluster.
type Manifest struct {
	Pod *corev1.Pod
	// Secrets are created before the pod and owned by it.
	Secrets  []*corev1.Secret
	Services []Service
}

// ErrNoImage means that neither the job nor the settings name an image.
var ErrNoImage = errors.New("the job names no image, and job.image in the settings of podlane is empty")

// Build plans a job's pod. It does no I/O; the same input gives the same
// result. Errors are the job author's: a service without a name, say.
//
// No value of a job variable stands in the pod: scripts bring their own
// variables through exec, services get theirs through secrets.
func Build(job *gitlab.Job, s *settings.Settings, attempt string) (*Manifest, error) {
	image := job.Variables.Expand(job.Image.Name)
	if image == "" {
		image = s.Job.Image
	}
	if image == "" {
		return nil, ErrNoImage
	}
	services, err := Services(job)
	if err != nil {
		return nil, err
	}
	pull, err := pullConfig(job)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Services: services}
	meta := metadata(job, s, attempt)
	m.Pod = &corev1.Pod{
		ObjectMeta: meta,
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			ServiceAccountName:            s.Pod.ServiceAccount,
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			ActiveDeadlineSeconds:         new(int64((job.Timeout() + deadlineMargin).Seconds())),
			TerminationGracePeriodSeconds: new(int64(s.Pod.TerminationGracePeriod.D().Seconds())),
			NodeSelector:                  s.Pod.NodeSelector,
			PriorityClassName:             s.Pod.PriorityClass,
			HostAliases:                   hostAliases(services),
			Volumes:                       volumes(),
			// The kubelet starts containers in this order. The helper comes
			// first because the build container waits for what it brings.
			Containers: []corev1.Container{
				helperContainer(s),
				buildContainer(image, s),
			},
		},
	}
	spec := &m.Pod.Spec
	if len(job.Grants()) > 0 {
		addGrants(spec)
	}
	if s.Pod.RuntimeClass != "" {
		spec.RuntimeClassName = new(s.Pod.RuntimeClass)
	}
	if s.Job.AgentImage != "" {
		spec.InitContainers = []corev1.Container{agentContainer(s)}
	}
	for _, svc := range services {
		spec.Containers = append(spec.Containers, serviceContainer(svc, meta.Name, s))
		m.Secrets = append(m.Secrets, envSecret(meta, svc))
	}
	for _, name := range s.Pod.ImagePullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	if pull != nil {
		secret := pullSecret(meta, pull)
		m.Secrets = append(m.Secrets, secret)
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: secret.Name})
	}
	return m, nil
}

func metadata(job *gitlab.Job, s *settings.Settings, attempt string) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{
		Name:      Name(job),
		Namespace: s.Kubernetes.Namespace,
		Labels:    map[string]string{},
		Annotations: map[string]string{
			AnnotationJobName: job.JobInfo.Name,
			AnnotationJobURL:  job.URL(),
			AnnotationProject: job.JobInfo.ProjectFullPath,
			AnnotationRef:     job.GitInfo.Ref,
			AnnotationSha:     job.GitInfo.Sha,
			AnnotationTimeout: job.Timeout().String(),
		},
	}
	for k, v := range s.Pod.Labels {
		meta.Labels[k] = v
	}
	for k, v := range labels(job, attempt) {
		meta.Labels[k] = v
	}
	for k, v := range s.Pod.Annotations {
		meta.Annotations[k] = v
	}
	return meta
}

// volumes are the checkout, what podlane's own processes share, and a state
// folder for each container: the scripts of one container's stages hold
// secrets that are none of the other's business.
func volumes() []corev1.Volume {
	var out []corev1.Volume
	for _, name := range []string{"builds", "cache", "shared", "state-build", "state-helper"} {
		out = append(out, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}
	return out
}

func mounts(s *settings.Settings, state string) []corev1.VolumeMount {
	return []corev1.VolumeMount{
		{Name: "builds", MountPath: s.Job.BuildsDir},
		{Name: "cache", MountPath: s.Job.CacheDir},
		{Name: "shared", MountPath: sharedDir},
		{Name: state, MountPath: stateDir},
	}
}

func helperContainer(s *settings.Settings) corev1.Container {
	command := []string{agentInImage, "init", "--role", "helper", "--install", path.Dir(AgentPath), "--idle", s.Job.IdleTimeout.String()}
	if s.Job.AgentImage != "" {
		command = []string{AgentPath, "init", "--role", "helper", "--idle", s.Job.IdleTimeout.String()}
	}
	return corev1.Container{
		Name:            HelperContainer,
		Image:           s.Job.HelperImage,
		ImagePullPolicy: corev1.PullPolicy(s.Pod.PullPolicy),
		Command:         command,
		Resources:       resources(s.Resources.Helper),
		VolumeMounts:    mounts(s, "state-helper"),
	}
}

// buildContainer waits in the image's own shell for podlane-helper and becomes
// it. Shells differ in whether they can sleep for less than a second.
func buildContainer(image string, s *settings.Settings) corev1.Container {
	wait := fmt.Sprintf("until [ -x %s ]; do sleep 0.02 2>/dev/null || sleep 1; done; exec %[1]s init --role build --idle %s", AgentPath, s.Job.IdleTimeout)
	return corev1.Container{
		Name:            BuildContainer,
		Image:           image,
		ImagePullPolicy: corev1.PullPolicy(s.Pod.PullPolicy),
		Command:         []string{"sh", "-c", wait},
		Resources:       resources(s.Resources.Build),
		VolumeMounts:    mounts(s, "state-build"),
	}
}

// addGrants gives the build container, and it alone, a place in memory for what
// the job was granted.
func addGrants(spec *corev1.PodSpec) {
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "grants", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium:    corev1.StorageMediumMemory,
		SizeLimit: new(resource.MustParse("8Mi")),
	}}})
	for i := range spec.Containers {
		if c := &spec.Containers[i]; c.Name == BuildContainer {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "grants", MountPath: grantsDir})
		}
	}
}

// agentContainer brings podlane-helper where the helper image lacks it.
func agentContainer(s *settings.Settings) corev1.Container {
	return corev1.Container{
		Name:            "agent",
		Image:           s.Job.AgentImage,
		ImagePullPolicy: corev1.PullPolicy(s.Pod.PullPolicy),
		Command:         []string{agentInImage, "install", path.Dir(AgentPath)},
		Resources:       resources(s.Resources.Helper),
		VolumeMounts:    []corev1.VolumeMount{{Name: "shared", MountPath: sharedDir}},
	}
}

func serviceContainer(svc Service, pod string, s *settings.Settings) corev1.Container {
	return corev1.Container{
		Name:            svc.Container,
		Image:           svc.Image,
		ImagePullPolicy: corev1.PullPolicy(s.Pod.PullPolicy),
		Command:         svc.Command,
		Args:            svc.Args,
		EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: pod + "-" + svc.Container},
		}}},
		Resources: resources(s.Resources.Service),
	}
}

func envSecret(meta metav1.ObjectMeta, svc Service) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: meta.Name + "-" + svc.Container, Namespace: meta.Namespace, Labels: meta.Labels, Annotations: meta.Annotations},
		Type:       corev1.SecretTypeOpaque,
		StringData: svc.Env,
	}
}

func pullSecret(meta metav1.ObjectMeta, config []byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: meta.Name + "-pull", Namespace: meta.Namespace, Labels: meta.Labels, Annotations: meta.Annotations},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: config},
	}
}

// hostAliases makes every service's names resolve to the pod itself.
func hostAliases(services []Service) []corev1.HostAlias {
	var hosts []string
	for _, svc := range services {
		for _, host := range svc.Hosts {
			if !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	if len(hosts) == 0 {
		return nil
	}
	return []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: hosts}}
}

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

// AgentCommand is the argv with which a stage reaches podlane-helper. The
// helper container trusts only its own image's copy: the shared one can be
// overwritten by the job.
func AgentCommand(container string, s *settings.Settings, args ...string) []string {
	program := AgentPath
	if container == HelperContainer && s.Job.AgentImage == "" {
		program = agentInImage
	}
	return append([]string{program}, args...)
}

// ReadyArgs are podlane-helper's arguments that wait for the pod's insides.
func ReadyArgs(services []Service, timeout time.Duration) []string {
	args := []string{"ready", "--timeout", timeout.String()}
	for _, svc := range services {
		if len(svc.Ports) == 0 {
			continue
		}
		var ports []string
		for _, p := range svc.Ports {
			ports = append(ports, strconv.Itoa(p))
		}
		args = append(args, "--service", svc.Name+"="+strings.Join(ports, ","))
	}
	return args
}
