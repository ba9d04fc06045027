package settings

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	dnsLabel     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	labelValue   = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
	labelKey     = regexp.MustCompile(`^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	quantity     = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$`)
)

// checker reports values of the right type that can't be meant.
type checker struct{ *decoder }

func (c checker) must(ok bool, key, found, expected string) {
	if !ok {
		c.add(key, strconv.Quote(found), expected)
	}
}

func (c checker) oneOf(key, found string, values ...string) {
	c.must(slices.Contains(values, found), key, found, "one of "+strings.Join(values, ", "))
}

func (c checker) between(key string, found Duration, lowest, highest time.Duration) {
	c.must(found.D() >= lowest && found.D() <= highest, key, found.String(), fmt.Sprintf("a duration from %s to %s", lowest, highest))
}

// check reports all of them.
func (s *Settings) check(d *decoder) {
	c := checker{d}
	must, oneOf, between := c.must, c.oneOf, c.between
	dir := func(key, found string) {
		must(path.IsAbs(found) && path.Clean(found) == found && found != "/", key, found, `an absolute path other than "/", without "..", "//" or a final "/"`)
	}
	name := func(key, found string) {
		must(found == "" || dnsSubdomain.MatchString(found), key, found, "the name of a Kubernetes object")
	}
	const day = 24 * time.Hour

	s.checkNamespace(c)
	s.checkTemplates(c)
	s.Overwrites.check(c)
	s.Images.check(c)
	s.Security.check(c)
	between("kubernetes.request_timeout", s.Kubernetes.RequestTimeout, time.Second, 10*time.Minute)
	between("kubernetes.retry_budget", s.Kubernetes.RetryBudget, 0, day)

	if s.Kubernetes.Server != "" {
		must(strings.HasPrefix(s.Kubernetes.Server, "https://"), "kubernetes.server", s.Kubernetes.Server, `a URL such as "https://10.0.0.1:6443"`)
	}
	s.Vault.check(c)
	s.checkGrants(c)
	s.Cache.check(c)

	must(s.Job.HelperImage != "", "job.helper_image", s.Job.HelperImage, "an image with git and podlane-helper")
	oneOf("job.shell", s.Job.Shell, "bash", "sh")
	dir("job.builds_dir", s.Job.BuildsDir)
	dir("job.cache_dir", s.Job.CacheDir)
	must(s.Job.BuildsDir != s.Job.CacheDir, "job.cache_dir", s.Job.CacheDir, "a directory other than job.builds_dir")
	between("job.start_timeout", s.Job.StartTimeout, 0, 30*day)
	between("job.pull_timeout", s.Job.PullTimeout, 0, day)
	between("job.service_timeout", s.Job.ServiceTimeout, time.Second, day)
	between("job.cancel_grace", s.Job.CancelGrace, 0, 5*time.Minute)
	between("job.idle_timeout", s.Job.IdleTimeout, time.Minute, 7*day)

	name("pod.service_account", s.Pod.ServiceAccount)
	name("pod.priority_class", s.Pod.PriorityClass)
	name("pod.runtime_class", s.Pod.RuntimeClass)
	must(len(s.Pod.PullPolicy) > 0, "pod.pull_policy", "", "at least one of "+strings.Join(PullPolicies, ", "))
	c.pullPolicies("pod.pull_policy", s.Pod.PullPolicy)
	for _, secret := range s.Pod.ImagePullSecrets {
		must(secret != "" && dnsSubdomain.MatchString(secret), "pod.image_pull_secrets", secret, "names of secrets")
	}
	between("pod.termination_grace_period", s.Pod.TerminationGracePeriod, 0, day)
	for _, table := range []struct {
		key    string
		values map[string]string
	}{{"pod.node_selector", s.Pod.NodeSelector}, {"pod.labels", s.Pod.Labels}} {
		for _, k := range slices.Sorted(maps.Keys(table.values)) {
			must(labelKey.MatchString(k), table.key, k, "the key of a Kubernetes label")
			must(labelValue.MatchString(table.values[k]), table.key, table.values[k], "the value of a Kubernetes label")
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Pod.Labels)) {
		must(!strings.HasPrefix(k, "podlane/"), "pod.labels", k, `a key that does not start with "podlane/": those are ours`)
	}
	s.Observe.check(must)
	c.quantities("resources.build", s.Resources.Build)
	c.quantities("resources.helper", s.Resources.Helper)
	c.quantities("resources.service", s.Resources.Service)
	c.quantities("resources.pod", s.Resources.Pod.Container())
}
