package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
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
	grants []settings.Grant
	// get asks Vault for one credential, and says when the next one is due; send
	// hands all that there is to the pod.
	get   func(context.Context, settings.Grant) (granted, time.Time, error)
	send  func(context.Context, []granted) error
	warnf func(format string, args ...any)

	mu sync.Mutex
	// have is what was delivered last, in the order of grants.
	have []granted
}

// openGrants prepares the delivery of what the job asks for; nil means that it
// asks for nothing.
func (s *Stage) openGrants(client *pod.Client) (*granting, error) {
	grants, err := s.checkAccess()
	if err != nil || len(grants) == 0 {
		return nil, err
	}
	return &granting{
		grants: grants, get: s.grantedBy, warnf: s.Log.Warnf,
		send: func(ctx context.Context, have []granted) error { return s.handOver(ctx, client, have) },
	}, nil
}

// deliver gets every credential, and hands all of them to the pod. It returns
// when each must be renewed.
func (g *granting) deliver(ctx context.Context) ([]time.Time, error) {
	g.have = make([]granted, len(g.grants))
	due := make([]time.Time, len(g.grants))
	for i, grant := range g.grants {
		var err error
		if g.have[i], due[i], err = g.get(ctx, grant); err != nil {
			return nil, fmt.Errorf("the grant %s: %w", grant.Name, denied(err))
		}
	}
	return due, g.send(ctx, g.have)
}

// keepFresh renews what was granted until ctx ends, each for itself: one that
// can't be renewed is no reason to let the others end.
func (g *granting) keepFresh(ctx context.Context, due []time.Time) {
	var workers sync.WaitGroup
	for i := range g.grants {
		workers.Go(func() { g.keepOne(ctx, i, due[i]) })
	}
	workers.Wait()
}

// keepOne renews one credential. The script that runs has what it has: what
// can't be renewed is a warning, said once.
func (g *granting) keepOne(ctx context.Context, i int, due time.Time) {
	warned := false
	for {
		timer := time.NewTimer(max(time.Until(due), time.Second))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		next, err := g.renew(ctx, i)
		if err == nil && time.Until(next) > 0 {
			due, warned = next, false
			continue
		}
		// Without an error Vault is away, and the old one still good.
		due = time.Now().Add(renewPause)
		if err != nil && ctx.Err() == nil && !warned {
			warned = true
			g.warnf("the grant %s is not renewed yet: %v", g.grants[i].Name, err)
		}
	}
}

func (g *granting) renew(ctx context.Context, i int) (due time.Time, err error) {
	c, due, err := g.get(ctx, g.grants[i])
	if err != nil || time.Until(due) <= 0 {
		return due, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.have[i] = c
	return due, g.send(ctx, g.have)
}

// grantedBy asks Vault for one credential. What does not end is due in a day: no
// job lives that long without another stage.
func (s *Stage) grantedBy(ctx context.Context, grant settings.Grant) (granted, time.Time, error) {
	session := s.creds.session(grant.AuthRole)
	switch grant.Kind {
	case settings.GrantKubeconfig:
		cluster, err := s.clusterOf(grant)
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

// handOver gives the pod what there is. It is repeated when the connection breaks:
// podlane-helper writes the same files again.
func (s *Stage) handOver(ctx context.Context, client *pod.Client, have []granted) error {
	d, err := delivery(have)
	if err != nil {
		return err
	}
	// The one place where granted credentials are written in the clear: they
	// go to stdin of podlane-helper, over the exec stream.
	content, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode what was granted: %w", err)
	}
	name := pod.Name(s.Job)
	argv := pod.AgentCommand(pod.BuildContainer, s.Settings, "grant")
	budget := max(s.Settings.Kubernetes.RetryBudget.D(), time.Nanosecond)
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, s.Settings.Kubernetes.RequestTimeout.D())
		defer cancel()
		var said bytes.Buffer
		err := client.Exec(ctx, name, pod.BuildContainer, argv, pod.Streams{Stdin: bytes.NewReader(content), Stderr: &said})
		var exit *pod.ExitError
		switch {
		case err == nil:
			return struct{}{}, nil
		case errors.As(err, &exit):
			return struct{}{}, backoff.Permanent(fmt.Errorf("%s", bytes.TrimSpace(said.Bytes())))
		}
		if lost := client.WhyLost(ctx, name); lost != nil {
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
func (s *Stage) clusterOf(grant settings.Grant) (pod.Cluster, error) {
	if grant.Server == "" {
		return pod.ClusterOf(s.Settings)
	}
	cluster := pod.Cluster{Server: grant.Server}
	if grant.CAFile == "" {
		return cluster, nil
	}
	var err error
	cluster.CA, err = os.ReadFile(grant.CAFile)
	return cluster, err
}
