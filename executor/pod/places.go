package pod

import (
	"fmt"
	"regexp"
	"strings"

	"podlane/executor/settings"
)

// Places are the namespaces in which jobs have their pods: one, several, or all
// of the cluster whose names fit. Everything that people ask about jobs in
// general goes over them; a stage knows its own.
type Places struct {
	names []string
	// fits is for names that depend on the job; nil if names are all there are.
	fits *regexp.Regexp
}

// varies stands for what Fill puts into a name.
const varies = `[a-z0-9-]+`

// PlacesOf finds the places in the settings, or takes those that somebody names.
func PlacesOf(s *settings.Settings, only []string) Places {
	if len(only) > 0 {
		return Places{names: only}
	}
	p := Places{}
	pattern := s.Kubernetes.Namespace
	if !strings.Contains(pattern, "{") {
		p.names = []string{pattern}
	}
	var expression strings.Builder
	for rest := pattern; rest != ""; {
		plain, after, found := strings.Cut(rest, "{")
		expression.WriteString(regexp.QuoteMeta(plain))
		if _, rest, _ = strings.Cut(after, "}"); found {
			expression.WriteString(varies)
		}
	}
	if own := s.Overwrites.Namespace; own != "" {
		expression.WriteString("|(?:" + own + ")")
	} else if p.names != nil {
		return p
	}
	p.fits = regexp.MustCompile(`^(?:` + expression.String() + `)$`)
	return p
}

// Across returns a client for lists over all places.
func (c *Client) Across(p Places) *Client {
	other := *c
	other.places = p
	return &other
}

// has tells whether a namespace is one of the places.
func (p Places) has(namespace string) bool {
	return p.fits == nil || p.fits.MatchString(namespace)
}

// each calls look for each place: with "", all namespaces of the cluster, where
// the names depend on the job. An account that may not look everywhere looks
// where it knows a name.
func (c *Client) each(look func(namespace string) error) error {
	names := c.places.names
	if c.places.fits != nil {
		err := look("")
		switch {
		case !IsForbidden(err):
			return err
		case len(names) == 0:
			return fmt.Errorf("the settings have namespaces that depend on the job: %w; hint: deploy/namespace-per-job.yaml has an account that may look at all, --namespace names those to look at", err)
		}
		c.log.Warnf("only namespace %s is looked at, and not those that jobs have chosen: %v", strings.Join(names, ", "), err)
	} else if names == nil {
		names = []string{c.namespace}
	}
	for _, name := range names {
		if err := look(name); err != nil {
			return err
		}
	}
	return nil
}

// describe names the places for people.
func (c *Client) describe() string {
	switch {
	case c.places.fits != nil:
		return "any namespace of the settings"
	case len(c.places.names) > 0:
		return "namespace " + strings.Join(c.places.names, ", ")
	}
	return "namespace " + c.namespace
}
