package executor

import (
	"errors"
	"fmt"
	"testing"

	"podlane/vaultauth"
)

// What Vault says no to is the job author's where a claim of the job is at odds
// with a role, and where a grant is not for the job. All else is the operator's.
func TestWhoseFaultARefusalIs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		err        error
		own, grant bool // a build failure: in podlane's own access, in a grant
	}{
		{"a claim", &vaultauth.Error{Kind: vaultauth.Denied, Status: 400, Claim: "aud"}, true, true},
		{"a claim, further down", fmt.Errorf("get a token: %w", &vaultauth.Error{Kind: vaultauth.Denied, Claim: "ref_protected"}), true, true},
		{"a policy", &vaultauth.Error{Kind: vaultauth.Denied, Status: 403}, false, true},
		{"a role that is missing", &vaultauth.Error{Kind: vaultauth.Misconfigured, Status: 400}, false, false},
		{"an address", &vaultauth.Error{Kind: vaultauth.Misconfigured, Status: 403}, false, false},
		{"an issuer", &vaultauth.Error{Kind: vaultauth.Misconfigured, Status: 400, Claim: "iss"}, false, false},
		{"a clock", &vaultauth.Error{Kind: vaultauth.Misconfigured, Status: 400, Claim: "nbf"}, false, false},
		{"an id_token that has ended", &vaultauth.Error{Kind: vaultauth.Expired, Status: 400, Claim: "exp"}, false, false},
		{"a key", &vaultauth.Error{Kind: vaultauth.Misconfigured, Status: 400}, false, false},
		{"a seal", &vaultauth.Error{Kind: vaultauth.Unavailable, Status: 503}, false, false},
		{"words that nobody knows", &vaultauth.Error{Status: 400}, false, false},
		{"anything else", errors.New("x"), false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, build := AsBuildFailure(deniedClaim(tt.err)); build != tt.own {
				t.Errorf("podlane's own access: a build failure is %v, want %v", build, tt.own)
			}
			if _, build := AsBuildFailure(denied(tt.err)); build != tt.grant {
				t.Errorf("a grant: a build failure is %v, want %v", build, tt.grant)
			}
			if !errors.Is(deniedClaim(tt.err), tt.err) || !errors.Is(denied(tt.err), tt.err) {
				t.Error("the reason is lost")
			}
		})
	}
}
