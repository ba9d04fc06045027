package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cenkalti/backoff/v5"

	"podlane/executor/pod"
	"podlane/executor/settings"
	"podlane/internal/redact"
	"podlane/vaultauth"
)

// granting brings what a job was granted into its pod, and keeps it fresh while
// a script runs.
type granting struct {
	stage  *Stage
	client *pod.Client
	pod    string
	grants []settings.Grant
	// have is what was delivered last, in the order of grants, and due when the
	// first of it must be renewed.
	have []granted
	due  time.Time
}

// openGrants prepares the delivery of what the job asks for; nil means that it
// asks for nothing.
func (s *Stage) openGrants(client *pod.Client) (*granting, error) {
	grants, err := s.checkAccess()
	if err != nil || len(grants) == 0 {
		return nil, err
	}
	return &granting{stage: s, client: client, pod: pod.Name(s.Job), grants: grants}, nil
}

// deliver gets every credential that is due, and hands all of them to the pod.
func (g *granting) deliver(ctx context.Context) error {
	all := make([]granted, len(g.grants))
	g.due = time.Time{}
	for i, grant := range g.grants {
		c, due, err := g.get(ctx, grant)
		if err != nil {
			return fmt.Errorf("the grant %s: %w", grant.Name, denied(err))
		}
		if all[i] = c; g.due.IsZero() || due.Before(g.due) {
			g.due = due
		}
	}
	g.have = all
	return g.send(ctx)
}

// get asks Vault for one credential. What does not end is due in a day: no job
// lives that long without another stage.
func (g *granting) get(ctx context.Context, grant settings.Grant) (granted, time.Time, error) {
	session := g.stage.creds.session(grant.AuthRole)
	switch grant.Kind {
	case settings.GrantKubeconfig:
		cluster, err := g.clusterOf(grant)
		if err != nil {
			return granted{}, time.Time{}, err
		}
		t, err := session.KubeToken(ctx, vaultauth.KubeRequest{Mount: grant.Mount, Role: grant.Role, Namespace: grant.Namespace, TTL: grant.TTL.D()})
		return granted{grant: grant, cluster: cluster, token: t.Token, expires: t.Expires}, t.Refresh, err
	case settings.GrantAWS:
		c, err := session.S3(ctx, grant.Mount, grant.Role, grant.TTL.D())
		return granted{grant: grant, accessKey: redact.New(c.AccessKey), secretKey: c.SecretKey, sessionToken: c.SessionToken, expires: c.Expires},
			c.Issued.Add(c.Expires.Sub(c.Issued) * 7 / 10), err
	}
	never := time.Now().Add(24 * time.Hour)
	fields, err := session.KV(ctx, grant.Mount, grant.Path, grant.KVVersion == 2)
	if err != nil {
		return granted{}, never, err
	}
	value, ok := fields[grant.Field]
	if !ok {
		return granted{}, never, fmt.Errorf("the secret %s has no field %s", grant.Path, grant.Field)
	}
	return granted{grant: grant, value: value, expires: never}, never, nil
}

// send hands over what there is. It is repeated when the connection breaks:
// podlane-helper writes the same files again.
func (g *granting) send(ctx context.Context) error {
	d, err := delivery(g.have)
	if err != nil {
		return err
	}
	// The one place where granted credentials are written in the clear: they
	// go to stdin of podlane-helper, over the exec stream.
	content, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode what was granted: %w", err)
	}
	argv := pod.AgentCommand(pod.BuildContainer, g.stage.Settings, "grant")
	budget := max(g.stage.Settings.Kubernetes.RetryBudget.D(), time.Nanosecond)
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, g.stage.Settings.Kubernetes.RequestTimeout.D())
		defer cancel()
		var said bytes.Buffer
		err := g.client.Exec(ctx, g.pod, pod.BuildContainer, argv, pod.Streams{Stdin: bytes.NewReader(content), Stderr: &said})
		var exit *pod.ExitError
		switch {
		case err == nil:
			return struct{}{}, nil
		case errors.As(err, &exit):
			return struct{}{}, backoff.Permanent(fmt.Errorf("%s", bytes.TrimSpace(said.Bytes())))
		}
		if lost := g.client.WhyLost(ctx, g.pod); lost != nil {
			return struct{}{}, backoff.Permanent(lost)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(budget))
	if err != nil {
		return fmt.Errorf("hand over what was granted: %w", err)
	}
	return nil
}

// clusterOf is the one that a kubeconfig leads to: podlane's own, unless the
// grant names another.
func (g *granting) clusterOf(grant settings.Grant) (pod.Cluster, error) {
	if grant.Server == "" {
		return pod.ClusterOf(g.stage.Settings)
	}
	cluster := pod.Cluster{Server: grant.Server}
	if grant.CAFile == "" {
		return cluster, nil
	}
	var err error
	cluster.CA, err = os.ReadFile(grant.CAFile)
	return cluster, err
}

// keepFresh renews what was granted until ctx ends. The script that runs has
// what it has: what can't be renewed is a warning, said once.
func (g *granting) keepFresh(ctx context.Context) {
	warned := false
	for {
		timer := time.NewTimer(max(time.Until(g.due), time.Second))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		err := g.deliver(ctx)
		if err == nil {
			warned = false
			continue
		}
		if ctx.Err() == nil && !warned {
			warned = true
			g.stage.Log.Warnf("what this job was granted is not renewed yet: %v", err)
		}
		g.due = time.Now().Add(renewPause)
	}
}
