package pod

import (
	"context"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// restrict makes the pod one for the restricted Pod Security level, if that is
// what the API server refused it for (k8s.io/pod-security-admission
// admission/admission.go: `violates PodSecurity "restricted:latest"`).
func (m *Manifest) restrict(err error) bool {
	if m.restricted == nil || err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
		return false
	}
	m.Pod, m.restricted = m.restricted, nil
	return true
}

// accountPatience is how long a service account may be missing: a controller
// makes a new namespace's own within seconds.
const accountPatience = 30 * time.Second

// whileAccountIsMissing repeats the creation of a pod whose service account may
// be about to come (plugin/pkg/admission/serviceaccount: "error looking up
// service account").
func (c *Client) whileAccountIsMissing(ctx context.Context, m *Manifest, create func() error) error {
	deadline := time.Now().Add(accountPatience)
	said := false
	for {
		err := create()
		if !isAccountMissing(err) || time.Now().After(deadline) {
			return err
		}
		if !said && m.Namespace == nil {
			c.log.Linef("service account %s is not in namespace %s yet, waiting for up to %s", m.Pod.Spec.ServiceAccountName, m.Pod.Namespace, accountPatience)
		}
		said = true
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func isAccountMissing(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "error looking up service account")
}
