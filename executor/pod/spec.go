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

	agentContainerName = "agent"

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
	// Namespace is created before everything else; nil means that it is there.
	Namespace *corev1.Namespace
	// DisruptionBudget tells whether the pod gets one.
	DisruptionBudget bool
	// Warnings are lines for the job log.
	Warnings []string

	// accountSecrets tells that the service account's pull secrets are wanted.
	accountSecrets bool
	// restricted is the pod for a namespace that enforces the restricted level;
	// nil if Pod is that already, or may not be.
	restricted *corev1.Pod
	// pulls are the pull policies that are left to try, for each container.
	pulls map[string][]corev1.PullPolicy
}

// ErrNoImage means that neither the job nor the settings name an image.
var ErrNoImage = errors.New("the job names no image, and job.image in the settings of podlane is empty")

// Build plans a job's pod. It does no I/O; the same input gives the same
// result. Errors are the job author's, a service without a name, say; but for a
// *Failure, which says itself whose it is.
//
// Four layers make the pod, each on top of the one before: the defaults of the
// settings, the templates, what podlane needs, and what the job asks for. What
// all of them leave open about security is then filled in.
//
// No value of a job variable stands in the pod unless the settings let the job
// put it there: scripts bring their own variables through exec, services get
// theirs through secrets.
func Build(job *gitlab.Job, s *settings.Settings, attempt string) (*Manifest, error) {
	image, err := jobImage(job, s)
	if err != nil {
		return nil, err
	}
	services, err := Services(job)
	if err == nil {
		err = allowedServices(services, s)
	}
	if err != nil {
		return nil, err
	}
	asked, err := readOverwrites(job, s)
	if err != nil {
		return nil, err
	}
	template, err := podTemplate(job, s)
	if err != nil {
		return nil, err
	}
	meta, err := metadata(job, s, attempt)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Services: services, Warnings: asked.warnings, DisruptionBudget: s.Pod.DisruptionBudget, accountSecrets: s.Pod.ServiceAccountPullSecrets}
	if OwnsNamespace(job, s) {
		m.Namespace = ownNamespace(meta)
	}
	user, err := runAs(job, s)
	if err != nil {
		return nil, err
	}
	planned := overlay(defaults(s), asUser(user, template), forServices(template, services), required(job, s, image, services, meta), &asked.layer)
	planned.Spec.Tolerations = append(planned.Spec.Tolerations, asked.tolerations...)
	m.Pod = &corev1.Pod{ObjectMeta: planned.ObjectMeta, Spec: planned.Spec}
	if err := m.finish(job, s, asked); err != nil {
		return nil, err
	}
	return m, m.addSecrets(job, s, meta)
}

// defaults is what settings want of a pod where no template says otherwise.
func defaults(s *settings.Settings) *corev1.PodTemplateSpec {
	t := &corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: s.Pod.Labels, Annotations: s.Pod.Annotations},
		Spec: corev1.PodSpec{
			ServiceAccountName:            s.Pod.ServiceAccount,
			AutomountServiceAccountToken:  new(false),
			EnableServiceLinks:            new(false),
			TerminationGracePeriodSeconds: new(int64(s.Pod.TerminationGracePeriod.D().Seconds())),
			NodeSelector:                  s.Pod.NodeSelector,
			PriorityClassName:             s.Pod.PriorityClass,
			Volumes:                       []corev1.Volume{emptyDir("builds"), emptyDir("cache")},
		},
	}
	if s.Pod.RuntimeClass != "" {
		t.Spec.RuntimeClassName = new(s.Pod.RuntimeClass)
	}
	for _, name := range s.Pod.ImagePullSecrets {
		t.Spec.ImagePullSecrets = append(t.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return t
}

// required is what podlane can't do without.
func required(job *gitlab.Job, s *settings.Settings, image string, services []Service, meta metav1.ObjectMeta) *corev1.PodTemplateSpec {
	t := &corev1.PodTemplateSpec{
		ObjectMeta: meta,
		Spec: corev1.PodSpec{
			RestartPolicy:         corev1.RestartPolicyNever,
			ActiveDeadlineSeconds: new(int64((job.Timeout() + deadlineMargin).Seconds())),
			HostAliases:           hostAliases(services),
			Volumes:               ownVolumes(),
			Containers:            []corev1.Container{helperContainer(s), buildContainer(image, entrypoint(job.Image), s)},
		},
	}
	if s.Job.AgentImage != "" {
		t.Spec.InitContainers = []corev1.Container{agentContainer(s)}
	}
	for _, svc := range services {
		t.Spec.Containers = append(t.Spec.Containers, serviceContainer(svc, meta.Name))
	}
	return t
}

// finish decides what depends on the layers' sum.
func (m *Manifest) finish(job *gitlab.Job, s *settings.Settings, asked *overwrites) error {
	spec := &m.Pod.Spec
	order(spec.Containers)
	if len(job.Grants()) > 0 {
		addGrants(spec)
	}
	arch, err := placeOnArch(job, spec)
	if err != nil {
		return err
	}
	if err := m.choosePulls(job, s, arch); err != nil {
		return err
	}
	if err := m.allotAll(s, asked); err != nil {
		return err
	}
	if err := checkMounts(spec); err != nil {
		return err
	}
	if s.Security.Level == settings.LevelAuto {
		m.restricted = m.Pod.DeepCopy()
		secure(&m.restricted.Spec, s.Security, true)
	}
	secure(spec, s.Security, s.Security.Level == settings.LevelRestricted)
	return nil
}

// choosePulls sets the first pull policy of each container of ours, and the
// helper image's architecture.
func (m *Manifest) choosePulls(job *gitlab.Job, s *settings.Settings, arch string) error {
	m.pulls = map[string][]corev1.PullPolicy{}
	set := func(c *corev1.Container, asked []string) error {
		policies, err := pullPolicies(c.Image, asked, s)
		if err != nil {
			return err
		}
		if c.ImagePullPolicy == "" {
			c.ImagePullPolicy = policies[0]
			m.pulls[c.Name] = policies[1:]
		}
		return nil
	}
	for i := range m.Pod.Spec.InitContainers {
		if c := &m.Pod.Spec.InitContainers[i]; c.Name == agentContainerName {
			if err := set(c, nil); err != nil {
				return err
			}
		}
	}
	for i := range m.Pod.Spec.Containers {
		c := &m.Pod.Spec.Containers[i]
		var asked []string
		switch c.Name {
		case HelperContainer:
			c.Image = s.Job.HelperImageFor(arch)
		case BuildContainer:
			asked = job.Image.PullPolicy
		default:
			at := slices.IndexFunc(m.Services, func(svc Service) bool { return svc.Container == c.Name })
			if at < 0 {
				continue // a sidecar is the template's business
			}
			asked = job.Services[at].PullPolicy
		}
		if err := set(c, asked); err != nil {
			return err
		}
	}
	return nil
}

// allotAll gives each container of ours its requests and limits.
func (m *Manifest) allotAll(s *settings.Settings, asked *overwrites) (err error) {
	for i := range m.Pod.Spec.InitContainers {
		if c := &m.Pod.Spec.InitContainers[i]; c.Name == agentContainerName {
			if c.Resources, err = allot("init container "+c.Name, resources(s.Resources.Helper), c.Resources, asked.helper); err != nil {
				return err
			}
		}
	}
	for i := range m.Pod.Spec.Containers {
		c := &m.Pod.Spec.Containers[i]
		var defaults, own settings.Container
		switch c.Name {
		case HelperContainer:
			defaults, own = s.Resources.Helper, asked.helper
		case BuildContainer:
			defaults, own = s.Resources.Build, asked.build
		default:
			at := slices.IndexFunc(m.Services, func(svc Service) bool { return svc.Container == c.Name })
			if at < 0 {
				continue
			}
			defaults, own = s.Resources.Service, asked.services[at]
		}
		if c.Resources, err = allot("container "+c.Name, resources(defaults), c.Resources, own); err != nil {
			return err
		}
	}
	var template corev1.ResourceRequirements
	if m.Pod.Spec.Resources != nil {
		template = *m.Pod.Spec.Resources
	}
	whole, err := allot("the pod", resources(s.Resources.Pod.Container()), template, asked.pod)
	if len(whole.Requests)+len(whole.Limits) > 0 {
		m.Pod.Spec.Resources = &whole
	}
	return err
}

// addSecrets plans the secrets that the pod refers to.
func (m *Manifest) addSecrets(job *gitlab.Job, s *settings.Settings, meta metav1.ObjectMeta) error {
	for _, svc := range m.Services {
		m.Secrets = append(m.Secrets, envSecret(meta, svc))
	}
	pull, err := pullConfig(job)
	if err != nil || pull == nil {
		return err
	}
	secret := pullSecret(meta, pull)
	m.Secrets = append(m.Secrets, secret)
	for _, pod := range []*corev1.Pod{m.Pod, m.restricted} {
		if pod != nil {
			pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: secret.Name})
		}
	}
	return nil
}

// metadata is of the pod and, but for what templates add to it, of everything
// else that the job has on the cluster.
func metadata(job *gitlab.Job, s *settings.Settings, attempt string) (metav1.ObjectMeta, error) {
	namespace, err := Namespace(job, s)
	return metav1.ObjectMeta{
		Name:      Name(job),
		Namespace: namespace,
		Labels:    labels(job, attempt),
		Annotations: map[string]string{
			AnnotationJobName: job.JobInfo.Name,
			AnnotationJobURL:  job.URL(),
			AnnotationProject: job.JobInfo.ProjectFullPath,
			AnnotationRef:     job.GitInfo.Ref,
			AnnotationSha:     job.GitInfo.Sha,
			AnnotationTimeout: job.Timeout().String(),
		},
	}, err
}

// ownVolumes are what podlane's own processes share, and a state folder for
// each container: the scripts of one container's stages hold secrets that are
// none of the other's business. The checkout's volume and the caches' are among
// the defaults: a template can put them elsewhere.
func ownVolumes() []corev1.Volume {
	return []corev1.Volume{emptyDir("shared"), emptyDir("state-build"), emptyDir("state-helper")}
}

func emptyDir(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
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
		Name:         HelperContainer,
		Image:        s.Job.HelperImage,
		Command:      command,
		VolumeMounts: mounts(s, "state-helper"),
	}
}

// buildContainer waits in the image's own shell for podlane-helper and becomes
// it. Shells differ in whether they can sleep for less than a second.
func buildContainer(image string, entrypoint []string, s *settings.Settings) corev1.Container {
	wait := fmt.Sprintf("until [ -x %s ]; do sleep 0.02 2>/dev/null || sleep 1; done; exec %[1]s init --role build --idle %s", AgentPath, s.Job.IdleTimeout)
	if len(entrypoint) > 0 {
		wait += " --keep-env" // of which scripts are to have what the entrypoint has set
	}
	return corev1.Container{
		Name:         BuildContainer,
		Image:        image,
		Command:      append(slices.Clone(entrypoint), "sh", "-c", wait),
		VolumeMounts: mounts(s, "state-build"),
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
		Name:         agentContainerName,
		Image:        s.Job.AgentImage,
		Command:      []string{agentInImage, "install", path.Dir(AgentPath)},
		VolumeMounts: []corev1.VolumeMount{{Name: "shared", MountPath: sharedDir}},
	}
}

func serviceContainer(svc Service, pod string) corev1.Container {
	return corev1.Container{
		Name:    svc.Container,
		Image:   svc.Image,
		Command: svc.Command,
		Args:    svc.Args,
		EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: pod + "-" + svc.Container},
		}}},
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
