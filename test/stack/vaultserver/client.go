// Package vaultserver is a Vault for tests: it starts one, sets it up, seals it,
// and talks to it as an administrator. The product has a client of its own.
package vaultserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// Client talks to a Vault with one token.
type Client struct {
	// Address is a URL.
	Address string
	Token   string
	// HTTP is http.DefaultClient if nil.
	HTTP *http.Client
}

// Error is Vault's refusal.
type Error struct {
	Method, Path string
	Status       int
	Errors       []string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: status %d: %s", e.Method, e.Path, e.Status, strings.Join(e.Errors, "; "))
}

// Status is the HTTP status of Vault's refusal, 0 if err isn't one.
func Status(err error) int {
	var refusal *Error
	if errors.As(err, &refusal) {
		return refusal.Status
	}
	return 0
}

// API calls path, without /v1/. Body becomes JSON unless it is nil, the answer
// is decoded into into unless that is nil. A status from 400 on is an *Error.
func (c Client) API(ctx context.Context, method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.Address+"/v1/"+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("X-Vault-Request", "true")
	if c.Token != "" {
		request.Header.Set("X-Vault-Token", c.Token)
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= http.StatusBadRequest {
		refusal := &Error{Method: method, Path: path, Status: answer.StatusCode}
		var said struct{ Errors []string }
		if json.Unmarshal(text, &said) == nil {
			refusal.Errors = said.Errors
		}
		return refusal
	}
	if into == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// Login logs in at a JWT mount and returns a client with the new token.
func (c Client) Login(ctx context.Context, mount, role, idToken string) (Client, error) {
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	c.Token = ""
	err := c.API(ctx, http.MethodPost, "auth/"+mount+"/login", map[string]string{"role": role, "jwt": idToken}, &answer)
	c.Token = answer.Auth.ClientToken
	return c, err
}

// Seal seals Vault. It answers everything with 503 until Unseal.
func (c Client) Seal(ctx context.Context) error {
	return c.API(ctx, http.MethodPut, "sys/seal", nil, nil)
}

// Unseal unseals Vault, and waits until it works.
func (c Client) Unseal(ctx context.Context, key string) error {
	if err := c.API(ctx, http.MethodPut, "sys/unseal", map[string]string{"key": key}, nil); err != nil {
		return err
	}
	return c.Healthy(ctx)
}

// Healthy asks whether Vault works: it runs, and is unsealed.
func (c Client) Healthy(ctx context.Context) error {
	return c.API(ctx, http.MethodGet, "sys/health", nil, nil)
}

// Secrets are files with what belongs to one Vault and opens all of it, without
// a newline.
type Secrets struct {
	UnsealKeyFile string
	RootTokenFile string
}

// Client returns an administrator's client for the Vault at address.
func (s Secrets) Client(address string) (Client, error) {
	token, err := os.ReadFile(s.RootTokenFile)
	return Client{Address: address, Token: string(token)}, err
}

// Prepare makes a Vault that answers one that works: initialised, unsealed, with
// an audit log. It may be called as often as you like. Secrets are written for
// a new Vault and read for an old one.
func (s Secrets) Prepare(ctx context.Context, address, auditLog string) error {
	c := Client{Address: address}
	var status struct{ Initialized, Sealed bool }
	if err := c.API(ctx, http.MethodGet, "sys/seal-status", nil, &status); err != nil {
		return err
	}
	if !status.Initialized {
		if err := s.initialise(ctx, c); err != nil {
			return fmt.Errorf("initialise Vault: %w", err)
		}
		status.Sealed = true
	}
	if status.Sealed {
		key, err := os.ReadFile(s.UnsealKeyFile)
		if err != nil {
			return err
		}
		if err := c.Unseal(ctx, string(key)); err != nil {
			return fmt.Errorf("unseal Vault: %w", err)
		}
	}
	c, err := s.Client(address)
	if err != nil {
		return err
	}
	return enableAudit(ctx, c, auditLog)
}

func (s Secrets) initialise(ctx context.Context, c Client) error {
	var answer struct {
		Keys      []string
		RootToken string `json:"root_token"`
	}
	ask := map[string]int{"secret_shares": 1, "secret_threshold": 1}
	if err := c.API(ctx, http.MethodPut, "sys/init", ask, &answer); err != nil {
		return err
	}
	if len(answer.Keys) != 1 {
		return fmt.Errorf("%d unseal keys, expected 1", len(answer.Keys))
	}
	return errors.Join(
		os.WriteFile(s.UnsealKeyFile, []byte(answer.Keys[0]), 0o600),
		os.WriteFile(s.RootTokenFile, []byte(answer.RootToken), 0o600),
	)
}

// RawLog is the second log beside an audit log: in the clear, so that tests know
// the secrets that Vault has given out, and can look where they may not be.
func RawLog(auditLog string) string { return strings.TrimSuffix(auditLog, ".log") + "-raw.log" }

func enableAudit(ctx context.Context, c Client, file string) error {
	var devices struct{ Data map[string]any }
	if err := c.API(ctx, http.MethodGet, "sys/audit", nil, &devices); err != nil {
		return err
	}
	for name, options := range map[string]map[string]string{
		"file": {"file_path": file},
		"raw":  {"file_path": RawLog(file), "log_raw": "true"},
	} {
		if devices.Data[name+"/"] != nil {
			continue
		}
		if err := c.API(ctx, http.MethodPut, "sys/audit/"+name, map[string]any{"type": "file", "options": options}, nil); err != nil {
			return err
		}
	}
	return nil
}
