package pod

import (
	"encoding/json"
	"fmt"

	"podlane/executor/gitlab"
)

// dockerConfig is the part of Docker's config.json that pull secrets hold.
type dockerConfig struct {
	Auths map[string]json.RawMessage `json:"auths"`
}

type dockerAuth struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// pullConfig merges the job's own registry credentials with DOCKER_AUTH_CONFIG,
// which wins where both name a registry, as in GitLab's executors. It returns
// nil if there are none; an error is the job author's.
func pullConfig(job *gitlab.Job) ([]byte, error) {
	config := dockerConfig{Auths: map[string]json.RawMessage{}}
	for _, c := range job.Credentials {
		if c.Type != "registry" || c.URL == "" {
			continue
		}
		// The one place where a registry's password belongs into JSON: it
		// becomes a pull secret.
		auth, err := json.Marshal(dockerAuth{Username: c.Username, Password: c.Password}) //nolint:gosec // see above
		if err != nil {
			return nil, fmt.Errorf("encode registry credential: %w", err)
		}
		config.Auths[c.URL] = auth
	}
	if own := job.Variables.Get("DOCKER_AUTH_CONFIG"); own != "" {
		var given dockerConfig
		if err := json.Unmarshal([]byte(own), &given); err != nil {
			// The decoder's message may quote the value, which is a secret.
			return nil, fmt.Errorf(`the variable DOCKER_AUTH_CONFIG is not JSON of the form {"auths": {"registry": {"auth": "…"}}}`)
		}
		for registry, auth := range given.Auths {
			config.Auths[registry] = auth
		}
	}
	if len(config.Auths) == 0 {
		return nil, nil
	}
	return json.Marshal(config)
}
