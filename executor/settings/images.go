package settings

import (
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Images says which images jobs may use, and how. The images that settings
// themselves name are always allowed.
type Images struct {
	// AllowedImages and AllowedServices are globs; "**" crosses "/". None means
	// every image.
	AllowedImages   []string `toml:"allowed_images"`
	AllowedServices []string `toml:"allowed_services"`
	// AllowedPullPolicies are what image:pull_policy may ask for beside
	// pod.pull_policy.
	AllowedPullPolicies []string `toml:"allowed_pull_policies"`
	// AllowedUsers and AllowedGroups are the numbers that image:kubernetes:user
	// may name; none means every number.
	AllowedUsers  []int64 `toml:"allowed_users"`
	AllowedGroups []int64 `toml:"allowed_groups"`
}

// Matches tells whether one of the globs matches an image, or there are none.
func Matches(globs []string, image string) bool {
	for _, glob := range globs {
		if ok, _ := doublestar.Match(glob, image); ok {
			return true
		}
	}
	return len(globs) == 0
}

func (i *Images) check(c checker) {
	for _, list := range []struct {
		key   string
		globs []string
	}{{"images.allowed_images", i.AllowedImages}, {"images.allowed_services", i.AllowedServices}} {
		for _, glob := range list.globs {
			c.must(glob != "" && doublestar.ValidatePattern(glob), list.key, glob, `globs such as "registry.example.com/**"`)
		}
	}
	c.pullPolicies("images.allowed_pull_policies", i.AllowedPullPolicies)
}

// PullPolicies are Kubernetes' names for them.
var PullPolicies = []string{"Always", "IfNotPresent", "Never"}

func (c checker) pullPolicies(key string, policies []string) {
	for _, policy := range policies {
		c.oneOf(key, policy, PullPolicies...)
	}
}

// archPlaceholder in job.helper_image stands for the architecture of the node.
const archPlaceholder = "{arch}"

// HelperImageFor returns job.helper_image for an architecture: amd64, arm64.
func (j *Job) HelperImageFor(arch string) string {
	return strings.ReplaceAll(j.HelperImage, archPlaceholder, arch)
}
