package vaultauth

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"podlane/internal/redact"
)

// state is what a [Store] holds: for each JWT role its tokens and what was
// issued with them. S3 credentials are never in it: they live as long as one
// transfer, and their lives can't be cut short.
type state struct {
	Roles map[string]roleState
}

type roleState struct {
	Token *token
	// Former are tokens that have been replaced and may still hold leases.
	Former []token
	// Kube is by mount, role and namespace.
	Kube map[string]KubeToken
}

// tokens returns all that still live.
func (r roleState) tokens(now time.Time) []token {
	var all []token
	if r.Token != nil && r.Token.alive(now) {
		all = append(all, *r.Token)
	}
	for _, t := range r.Former {
		if t.alive(now) {
			all = append(all, t)
		}
	}
	return all
}

// prune forgets what has ended.
func (r roleState) prune(now time.Time) roleState {
	r.Former = slices.DeleteFunc(slices.Clone(r.Former), func(t token) bool { return !t.alive(now) })
	r.Kube = maps.Clone(r.Kube)
	maps.DeleteFunc(r.Kube, func(_ string, k KubeToken) bool { return !now.Before(k.Expires) })
	return r
}

// The types below are the state in JSON. They are apart from the types that
// are worked with because those do not give their secrets to an encoder.

type stateJSON struct {
	Roles map[string]roleJSON `json:"roles"`
}

type roleJSON struct {
	Token  *tokenJSON          `json:"token,omitempty"`
	Former []tokenJSON         `json:"former,omitempty"`
	Kube   map[string]kubeJSON `json:"kube,omitempty"`
}

type tokenJSON struct {
	Secret    string    `json:"secret"`
	Accessor  string    `json:"accessor"`
	Policies  []string  `json:"policies"`
	Renewable bool      `json:"renewable"`
	Issued    time.Time `json:"issued"`
	Refresh   time.Time `json:"refresh"`
	Expires   time.Time `json:"expires"`
}

type kubeJSON struct {
	Secret         string    `json:"secret"`
	Namespace      string    `json:"namespace"`
	ServiceAccount string    `json:"service_account"`
	Issued         time.Time `json:"issued"`
	Refresh        time.Time `json:"refresh"`
	Expires        time.Time `json:"expires"`
}

func (s state) encode() ([]byte, error) {
	out := stateJSON{Roles: map[string]roleJSON{}}
	for name, role := range s.Roles {
		var r roleJSON
		if role.Token != nil {
			t := role.Token.toJSON()
			r.Token = &t
		}
		for _, t := range role.Former {
			r.Former = append(r.Former, t.toJSON())
		}
		for key, k := range role.Kube {
			if r.Kube == nil {
				r.Kube = map[string]kubeJSON{}
			}
			r.Kube[key] = kubeJSON{k.Token.Reveal(), k.Namespace, k.ServiceAccount, k.Issued, k.Refresh, k.Expires}
		}
		out.Roles[name] = r
	}
	return json.Marshal(out)
}

func decodeState(data []byte) (state, error) {
	var in stateJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return state{}, err
	}
	s := state{Roles: map[string]roleState{}}
	for name, role := range in.Roles {
		var r roleState
		if role.Token != nil {
			t := role.Token.token()
			r.Token = &t
		}
		for _, t := range role.Former {
			r.Former = append(r.Former, t.token())
		}
		for key, k := range role.Kube {
			if r.Kube == nil {
				r.Kube = map[string]KubeToken{}
			}
			r.Kube[key] = KubeToken{redact.New(k.Secret), k.Namespace, k.ServiceAccount, k.Issued, k.Refresh, k.Expires}
		}
		s.Roles[name] = r
	}
	return s, nil
}

func (t token) toJSON() tokenJSON {
	return tokenJSON{t.Secret.Reveal(), t.Accessor, t.Policies, t.Renewable, t.Issued, t.Refresh, t.Expires}
}

func (t tokenJSON) token() token {
	return token{redact.New(t.Secret), t.Accessor, t.Policies, t.Renewable, lifetime{t.Issued, t.Refresh, t.Expires}}
}
