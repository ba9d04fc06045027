package secretscan

import (
	"context"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	t.Parallel()
	const known = "marker-0123456789ab"
	for text, want := range map[string]string{
		"nothing to see, s.th.": "",
		"the value " + known:    "a value that was to be kept secret",
		base64.StdEncoding.EncodeToString([]byte("user:" + known)):  "a value that was to be kept secret",
		"token hvs.CAESIJlwz0000000000000000000000000":              "a Vault token",
		"token s.abcdefghijklmnopqrstuvwx":                          "an OpenBao token",
		"x eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwIn0.c2lnbmF0dXJl x": "a JWT",
		`"secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"`:  "an AWS secret key",
		"aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMP": "an AWS secret key",
		"?X-Amz-Signature=" + strings.Repeat("0a", 32):              "a presigned URL",
		"x-amz-signature=[redacted] hvs.[redacted]":                 "",
	} {
		s := New(known)
		s.Text("trace", "of a job", text)
		err := s.Err()
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "trace of a job")):
			t.Errorf("%q: %v, want %s", text, err, want)
		case err != nil && strings.Contains(err.Error(), known):
			t.Errorf("%v shows the value", err)
		}
		if s.Seen("trace") != 1 {
			t.Error("not counted")
		}
	}
}

// What becomes known later is found in what came before.
func TestAgain(t *testing.T) {
	t.Parallel()
	s := New()
	s.Text("trace", "of a job", "it shows value-of-a-token")
	s.Know("value-of-a-token")
	if err := s.Err(); err != nil {
		t.Errorf("found before it looked again: %v", err)
	}
	s.Again()
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "trace of a job") {
		t.Errorf("%v, want it found", err)
	}
}

func TestLogFromAnOffset(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.log")
	first := "known-value-1\n"
	if err := os.WriteFile(file, []byte(first+"harmless\nlast without end"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New("known-value-1")
	if err := s.Log("audit", file, int64(len(first))); err != nil || s.Err() != nil || s.Seen("audit") != 2 {
		t.Errorf("after the offset: %v, %v, %d lines", err, s.Err(), s.Seen("audit"))
	}
	if err := s.Log("audit", file, 0); err != nil || s.Err() == nil {
		t.Errorf("from the start: %v, %v, want it found", err, s.Err())
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "job", "response.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("known-value-1"), 0o600); err != nil {
		t.Fatal(err)
	}
	// What goes in time is not reported.
	s := New("known-value-1")
	remove := time.AfterFunc(300*time.Millisecond, func() { _ = os.RemoveAll(filepath.Dir(path)) })
	defer remove.Stop()
	if err := s.Files(t.Context(), dir); err != nil || s.Err() != nil {
		t.Errorf("%v, %v", err, s.Err())
	}
	// What stays is.
	if err := os.WriteFile(filepath.Join(dir, "left"), []byte("known-value-1"), 0o600); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Files(over, dir); err != nil || s.Err() == nil || !strings.Contains(s.Err().Error(), "left") {
		t.Errorf("%v, %v, want it found", err, s.Err())
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	s := New("known-value-of-a-process")
	s.Processes()
	defer s.Stop()
	// The shell stays: a last command that is not the only one is no exec.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "read line; : known-value-of-a-process hvs.CAESIJlwz0000000000000000000000000")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for s.Err() == nil || !strings.Contains(s.Err().Error(), "a Vault token") || !strings.Contains(s.Err().Error(), "kept secret") {
		if time.Now().After(deadline) {
			t.Fatalf("found only: %v", s.Err())
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = in.Close()
	_ = cmd.Wait()
}
