package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"podlane/executor/settings"
)

// Server is what an API server tells anybody.
type Server struct {
	Address string
	// Version is empty where it isn't told to those who don't say who they are.
	Version string
	// Time is the server's clock, to the second.
	Time time.Time
}

// AskServer asks the API server that the settings name for its version: once,
// and without saying who we are.
func AskServer(ctx context.Context, s *settings.Settings) (Server, error) {
	config, err := restConfig(s, s.Vault.ForKubernetes())
	if err != nil {
		return Server{}, err
	}
	server := Server{Address: config.Host}
	ctx, cancel := context.WithTimeout(ctx, s.Kubernetes.RequestTimeout.D())
	defer cancel()
	client, err := rest.HTTPClientFor(rest.AnonymousClientConfig(config))
	if err != nil {
		return server, fmt.Errorf("set up access to kubernetes: %w", err)
	}
	defer client.CloseIdleConnections()
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return server, fmt.Errorf("set up access to kubernetes: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("version").String(), nil)
	if err != nil {
		return server, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return server, err
	}
	defer answer.Body.Close()
	server.Time, _ = http.ParseTime(answer.Header.Get("Date"))
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return server, err
	}
	var version struct {
		GitVersion string `json:"gitVersion"`
	}
	switch {
	case answer.StatusCode == http.StatusUnauthorized, answer.StatusCode == http.StatusForbidden:
	case answer.StatusCode != http.StatusOK, json.Unmarshal(body, &version) != nil, version.GitVersion == "":
		return server, fmt.Errorf("the answer of %s to GET /version is no API server's: status %d", config.Host, answer.StatusCode)
	}
	server.Version = version.GitVersion
	return server, nil
}

// Time asks for the API server's clock: this machine's may be wrong.
func (c *Client) Time(ctx context.Context) (now time.Time, err error) {
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return now, fmt.Errorf("set up access to kubernetes: %w", err)
	}
	base, _, err := rest.DefaultServerUrlFor(c.config)
	if err != nil {
		return now, fmt.Errorf("set up access to kubernetes: %w", err)
	}
	err = c.retry(ctx, "ask for the time", func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("version").String(), nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		answer.Body.Close()
		now, err = http.ParseTime(answer.Header.Get("Date"))
		return err
	})
	return now, err
}
