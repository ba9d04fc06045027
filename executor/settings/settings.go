// Package settings is podlane.toml: what the people who run the runner decide.
// Defaults stand in Default and nowhere else; Load reports everything that is
// wrong at once.
package settings

import (
	"time"
)

// Settings is the whole file. Values that a job may not influence come from
// here and from nowhere else.
type Settings struct {
	Kubernetes Kubernetes `toml:"kubernetes"`
	Job        Job        `toml:"job"`
	Pod        Pod        `toml:"pod"`
	Resources  Resources  `toml:"resources"`
	Vault      Vault      `toml:"vault"`
	Grants     []Grant    `toml:"grants"`
	Cache      Cache      `toml:"cache"`
	Observe    Observe    `toml:"observe"`
	Overwrites Overwrites `toml:"overwrites"`
	Images     Images     `toml:"images"`
	Security   Security   `toml:"security"`

	PodTemplates []PodTemplate `toml:"pod_templates"`
}

// Kubernetes says where the cluster is and how patient we are with its API.
type Kubernetes struct {
	// Kubeconfig is a file; empty means the service account of the pod that
	// the runner itself lives in.
	Kubeconfig string `toml:"kubeconfig"`
	// Context is one of the kubeconfig's; empty means its current one.
	Context string `toml:"context"`
	// Server is the API server's URL, and CAFile the certificates that its own
	// is checked against, for access with tokens from Vault: no kubeconfig is
	// needed then. Empty means what the kubeconfig says, or the cluster that
	// podlane runs in.
	Server string `toml:"server"`
	CAFile string `toml:"ca_file"`
	// Namespace is where job pods are created. It may hold placeholders: see
	// Placeholders.
	Namespace string `toml:"namespace"`
	// NamespacePerJob creates the namespace for each job and deletes it with the
	// job.
	NamespacePerJob bool `toml:"namespace_per_job"`
	// PodTemplate is a PodTemplateSpec that every job's pod is made from: YAML,
	// or the name of a file with it.
	PodTemplate string `toml:"pod_template"`
	// PodTemplateFile is the file's name, if it was one.
	PodTemplateFile string `toml:"-"`
	// RequestTimeout bounds a single API request that isn't a watch or an exec.
	RequestTimeout Duration `toml:"request_timeout"`
	// RetryBudget is how long a stage goes on trying when the API server can't
	// be reached, before it gives up with a system failure.
	RetryBudget Duration `toml:"retry_budget"`
}

// Job says how jobs run.
type Job struct {
	// Image is for jobs that name none.
	Image string `toml:"image"`
	// HelperImage runs git and artifact stages. {arch} in it stands for the
	// node's architecture.
	HelperImage string `toml:"helper_image"`
	// AgentImage brings podlane-helper where HelperImage hasn't got it. It
	// costs an init container, about a second a job; empty means that
	// HelperImage has it.
	AgentImage string `toml:"agent_image"`
	// Shell is what the runner writes its scripts for: bash or sh.
	Shell     string `toml:"shell"`
	BuildsDir string `toml:"builds_dir"`
	CacheDir  string `toml:"cache_dir"`
	// StartTimeout bounds the wait for the pod; 0 means the job's own timeout.
	StartTimeout Duration `toml:"start_timeout"`
	// PullTimeout is how long failing image pulls are left to the kubelet to
	// try again, counted from the first failure. "Not found" and "denied" end
	// the job at once.
	PullTimeout Duration `toml:"pull_timeout"`
	// ServiceTimeout bounds the wait for services with HEALTHCHECK_TCP_PORT.
	ServiceTimeout Duration `toml:"service_timeout"`
	// CancelGrace lies between SIGTERM and SIGKILL when a job is cancelled.
	CancelGrace Duration `toml:"cancel_grace"`
	// IdleTimeout ends a pod that no stage has talked to for that long.
	IdleTimeout Duration `toml:"idle_timeout"`
}

// Pod holds what goes into every job pod.
type Pod struct {
	ServiceAccount string `toml:"service_account"`
	// PullPolicy is a list: where an image can't be had with one, the next is
	// tried.
	PullPolicy       []string `toml:"pull_policy"`
	ImagePullSecrets []string `toml:"image_pull_secrets"`
	// ServiceAccountPullSecrets adds those of the service account.
	ServiceAccountPullSecrets bool              `toml:"service_account_pull_secrets"`
	NodeSelector              map[string]string `toml:"node_selector"`
	Labels                    map[string]string `toml:"labels"`
	Annotations               map[string]string `toml:"annotations"`
	PriorityClass             string            `toml:"priority_class"`
	RuntimeClass              string            `toml:"runtime_class"`
	TerminationGracePeriod    Duration          `toml:"termination_grace_period"`
	// DisruptionBudget keeps evictions, a drain of the node say, from the pod.
	DisruptionBudget bool `toml:"disruption_budget"`
}

// Resources are the requests and limits of each kind of container.
type Resources struct {
	Build   Container `toml:"build"`
	Helper  Container `toml:"helper"`
	Service Container `toml:"service"`
	// Pod is what all of the pod's containers share.
	Pod PodResources `toml:"pod"`
}

// Container is one kind's requests and limits, as Kubernetes quantities; empty
// means none.
type Container struct {
	CPURequest              string `toml:"cpu_request"`
	CPULimit                string `toml:"cpu_limit"`
	MemoryRequest           string `toml:"memory_request"`
	MemoryLimit             string `toml:"memory_limit"`
	EphemeralStorageRequest string `toml:"ephemeral_storage_request"`
	EphemeralStorageLimit   string `toml:"ephemeral_storage_limit"`
}

// Default returns the settings of an empty file.
func Default() Settings {
	return Settings{
		Kubernetes: Kubernetes{
			Namespace:      "default",
			RequestTimeout: Duration(30 * time.Second),
			RetryBudget:    Duration(5 * time.Minute),
		},
		Job: Job{
			HelperImage:    "podlane/helper",
			Shell:          "bash",
			BuildsDir:      "/builds",
			CacheDir:       "/cache",
			PullTimeout:    Duration(5 * time.Minute),
			ServiceTimeout: Duration(time.Minute),
			CancelGrace:    Duration(15 * time.Second),
			IdleTimeout:    Duration(15 * time.Minute),
		},
		Pod: Pod{
			ServiceAccount:         "default",
			PullPolicy:             []string{"IfNotPresent"},
			TerminationGracePeriod: Duration(30 * time.Second),
		},
		Resources: Resources{
			Build:  Container{CPURequest: "500m", MemoryRequest: "512Mi"},
			Helper: Container{CPURequest: "50m", MemoryRequest: "64Mi"},
		},
		Vault:    defaultVault(),
		Cache:    defaultCache(),
		Observe:  defaultObserve(),
		Security: defaultSecurity(),
	}
}

// Duration is a time.Duration that is written as "90s" or "10m" in TOML.
type Duration time.Duration

// D returns the value as the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String writes the duration as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }
