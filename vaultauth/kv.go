package vaultauth

import (
	"context"
	"encoding/json"
	"fmt"

	"podlane/internal/redact"
)

// KV reads the fields of a secret from a KV engine. Values that are not text
// come as JSON. Path is the secret's, without the data/ that version 2 puts
// before it.
func (s *Session) KV(ctx context.Context, mount, path string, version2 bool) (map[string]redact.Secret, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	op := fmt.Sprintf("read the secret %s of %s from vault", path, mount)
	full := mount + "/" + path
	if version2 {
		full = mount + "/data/" + path
	}
	ans, err := s.with(ctx, request{op: op, path: full})
	if err != nil {
		return nil, err
	}
	fields := ans.Data
	if version2 {
		var outer struct {
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(fields, &outer); err != nil || len(outer.Data) == 0 || string(outer.Data) == "null" {
			return nil, misconfigured(op, "the answer has no fields: is %s a KV engine of version 2?", mount)
		}
		fields = outer.Data
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(fields, &values); err != nil || values == nil {
		return nil, misconfigured(op, "the answer has no fields")
	}
	secrets := make(map[string]redact.Secret, len(values))
	for name, value := range values {
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		secrets[name] = redact.New(text)
		s.client.redact.Add(secrets[name])
	}
	return secrets, nil
}
