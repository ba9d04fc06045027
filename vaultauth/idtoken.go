package vaultauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"podlane/internal/joblog"
	"podlane/internal/redact"
)

// IDToken is what an id_token says about itself. Nobody has checked its
// signature: it is for messages and for planning, never for decisions about
// access. Vault checks it at login.
type IDToken struct {
	Issuer    string
	Audience  []string
	IssuedAt  time.Time // zero if not said
	Expires   time.Time // zero if not said
	ProjectID string
	// RefProtected is GitLab's claim ref_protected.
	RefProtected bool
}

// DecodeIDToken reads a JWT without checking it. The error never quotes it.
func DecodeIDToken(token redact.Secret) (IDToken, error) {
	payload, err := payloadOf(token)
	if err != nil {
		return IDToken{}, err
	}
	var claims struct {
		Issuer       flexible  `json:"iss"`
		Audience     audience  `json:"aud"`
		IssuedAt     timestamp `json:"iat"`
		Expires      timestamp `json:"exp"`
		ProjectID    flexible  `json:"project_id"`
		RefProtected flexible  `json:"ref_protected"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return IDToken{}, errors.New("the id_token's second part does not hold a token's claims in JSON")
	}
	return IDToken{
		Issuer:       string(claims.Issuer),
		Audience:     claims.Audience,
		IssuedAt:     time.Time(claims.IssuedAt),
		Expires:      time.Time(claims.Expires),
		ProjectID:    string(claims.ProjectID),
		RefProtected: claims.RefProtected == "true",
	}, nil
}

func payloadOf(token redact.Secret) ([]byte, error) {
	parts := strings.Split(token.Reveal(), ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("the id_token has %d parts divided by dots, expected the 3 of a JWT", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil, errors.New("the id_token's second part is not base64")
	}
	return payload, nil
}

// maxClaim is how much of a claim is worth a line, in bytes of JSON.
const maxClaim = 200

// claimOf returns one claim as it stands in the token, in JSON on one line; empty
// if there is none.
func claimOf(token redact.Secret, name string) string {
	payload, err := payloadOf(token)
	if err != nil {
		return ""
	}
	var claims map[string]json.RawMessage
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	value := joblog.OneLine(string(claims[name]))
	if len(value) > maxClaim {
		value = strings.ToValidUTF8(value[:maxClaim], "") + "…"
	}
	return value
}

// flexible is a string, number or boolean: GitLab sends most claims as strings,
// others do not.
type flexible string

func (f *flexible) UnmarshalJSON(data []byte) error {
	var v any
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return err
	}
	switch v := v.(type) {
	case string, json.Number, bool:
		*f = flexible(fmt.Sprint(v))
	case nil:
	default:
		return fmt.Errorf("a %T, expected a string, number or boolean", v)
	}
	return nil
}

// audience is one string or a list of them (RFC 7519, 4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// timestamp is a number of seconds, possibly with a fraction (RFC 7519, 2).
type timestamp time.Time

// maxSeconds is the year 9999: later dates can't be printed or stored.
const maxSeconds = 253402300799

func (t *timestamp) UnmarshalJSON(data []byte) error {
	var seconds *float64
	if err := json.Unmarshal(data, &seconds); err != nil {
		return err
	}
	if seconds == nil {
		return nil
	}
	if *seconds < 0 || *seconds > maxSeconds {
		return fmt.Errorf("%v is not a date", *seconds)
	}
	*t = timestamp(time.Unix(int64(*seconds), 0))
	return nil
}
