package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"podlane/executor/settings"
)

// Right is something that podlane does on a cluster. The RBAC in deploy/ gives
// exactly these.
type Right struct {
	// Group is the API group, Resource may have a subresource: pods/exec.
	Group, Resource string
	Verbs           []string
	// Cluster is set for what lies in no namespace.
	Cluster bool
	// Where says which file in deploy/ gives it.
	Where string

	needed func(*settings.Settings) bool // nil: always
}

const (
	deployNamespaced = "deploy/rbac.yaml"
	deployBudgets    = "deploy/disruption-budget.yaml"
	deployNamespaces = "deploy/namespace-per-job.yaml"
	deployNodes      = "deploy/node-watch.yaml"
)

// rights is all that stages and commands for people ask of an API server, but
// for `podlane gc`, which deploy/gc-cronjob.yaml has an account for.
var rights = []Right{
	{Resource: "pods", Verbs: []string{"create", "get", "list", "watch", "delete"}, Where: deployNamespaced},
	{Resource: "pods/exec", Verbs: []string{"create", "get"}, Where: deployNamespaced},
	{Resource: "pods/log", Verbs: []string{"get"}, Where: deployNamespaced},
	{Resource: "secrets", Verbs: []string{"create", "patch", "delete"}, Where: deployNamespaced},
	{Resource: "events", Verbs: []string{"list", "watch"}, Where: deployNamespaced},
	{
		Resource: "serviceaccounts", Verbs: []string{"get"}, Where: deployNamespaced + ", the lines to uncomment",
		needed: func(s *settings.Settings) bool { return s.Pod.ServiceAccountPullSecrets },
	},
	{
		Group: "policy", Resource: "poddisruptionbudgets", Verbs: []string{"create"}, Where: deployBudgets,
		needed: func(s *settings.Settings) bool { return s.Pod.DisruptionBudget },
	},
	{
		Resource: "namespaces", Verbs: []string{"create", "get", "list", "delete"}, Cluster: true, Where: deployNamespaces,
		needed: func(s *settings.Settings) bool { return s.Kubernetes.NamespacePerJob },
	},
	{
		Resource: "nodes", Verbs: []string{"get", "watch"}, Cluster: true, Where: deployNodes,
		needed: func(*settings.Settings) bool { return false }, // a job that loses its node ends later
	},
}

// Lack is a right that an account has not got.
type Lack struct {
	Right
	Verb string
}

// String is the right as `kubectl auth can-i` takes it: create pods/exec.
func (l Lack) String() string {
	if l.Group != "" {
		return l.Verb + " " + l.Resource + "." + l.Group
	}
	return l.Verb + " " + l.Resource
}

// Lacking asks the API server which of the rights that the settings need are
// missing in the client's namespace. The namespace itself need not be there.
func (c *Client) Lacking(ctx context.Context, s *settings.Settings) ([]Lack, error) {
	var all []Lack
	for _, r := range rights {
		if r.needed != nil && !r.needed(s) {
			continue
		}
		for _, verb := range r.Verbs {
			all = append(all, Lack{Right: r, Verb: verb})
		}
	}
	has := map[string]bool{}
	var mu sync.Mutex
	err := inParallel(all, func(l Lack) error {
		may, err := c.may(ctx, l)
		mu.Lock()
		defer mu.Unlock()
		has[l.String()] = may
		return err
	})
	return slices.DeleteFunc(all, func(l Lack) bool { return has[l.String()] }), err
}

// MayEverything tells whether the account is the cluster's administrator.
func (c *Client) MayEverything(ctx context.Context) (bool, error) {
	return c.may(ctx, Lack{Right: Right{Group: "*", Resource: "*", Cluster: true}, Verb: "*"})
}

// may asks for one verb, in the one way that every account may: a
// SelfSubjectAccessReview.
func (c *Client) may(ctx context.Context, l Lack) (bool, error) {
	resource, subresource, _ := strings.Cut(l.Resource, "/")
	attributes := map[string]string{"verb": l.Verb, "group": l.Group, "resource": resource, "subresource": subresource}
	if !l.Cluster {
		attributes["namespace"] = c.namespace
	}
	// As in createBudget: the client knows the core group only.
	body, err := json.Marshal(map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": map[string]any{"resourceAttributes": attributes},
	})
	if err != nil {
		return false, fmt.Errorf("encode an access review: %w", err)
	}
	var review struct {
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	err = c.retry(ctx, "ask for the right to "+l.String(), func(ctx context.Context) error {
		answer, err := c.rest.Post().AbsPath("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews").
			SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(body).DoRaw(ctx)
		if err != nil {
			return err
		}
		return json.Unmarshal(answer, &review)
	})
	return review.Status.Allowed, err
}
