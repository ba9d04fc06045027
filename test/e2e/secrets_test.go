package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"podlane/test/bed"
	"podlane/test/e2e/secretscan"
	"podlane/test/stack/vaultserver"
)

// marker is the value of a masked variable that every job has. It must not turn
// up in anything that the API server stores or logs, in arguments, in logs or in
// files that are left.
var marker = "marker-" + randomHex()

// secrets watches all tests, and is asked after them.
var secrets = secretscan.New(marker)

// given is what Vaults have given out, as far as we have read their logs.
var given = struct {
	mu     sync.Mutex
	offset map[string]int64 // by the raw log
	count  int
}{offset: map[string]int64{}}

// learn takes from a Vault's own log what it has given out since the last time:
// all of it is secret from now on. Secrets of a KV engine are known by those who
// have written them.
func learn(rawLog string) error {
	given.mu.Lock()
	defer given.mu.Unlock()
	f, err := os.Open(rawLog)
	if err != nil {
		return fmt.Errorf("learn what Vault has given out: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(given.offset[rawLog], io.SeekStart); err != nil {
		return fmt.Errorf("learn what Vault has given out: %w", err)
	}
	var values []string
	for lines := bufio.NewReaderSize(f, 1<<20); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil { // the rest of a line is read next time
			break
		}
		given.offset[rawLog] += int64(len(line))
		var entry struct {
			Type     string
			Request  struct{ Data map[string]any }
			Response struct {
				Auth struct {
					ClientToken string `json:"client_token"`
				}
				Data map[string]any
			}
		}
		if json.Unmarshal(line, &entry) != nil || entry.Type != "response" {
			continue
		}
		data := entry.Response.Data
		for _, value := range []any{
			entry.Response.Auth.ClientToken, entry.Request.Data["jwt"],
			data["service_account_token"], data["secret_key"], data["session_token"],
		} {
			if text, _ := value.(string); text != "" {
				values = append(values, text)
			}
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	given.count += len(values)
	secrets.Know(values...)
	return nil
}

// scanFiles looks at what jobs have left in a bed's folder. The last of them may
// still be tidying up.
func scanFiles(ctx context.Context, b *bed.Bed) error {
	if b.Vault != nil {
		if err := learn(vaultserver.RawLog(b.Vault.AuditLog)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	return secrets.Files(ctx, b.Dir)
}

// ranAll tells whether all tests ran, so that the scan has seen something of
// everything.
func ranAll() bool { return flag.Lookup("test.run").Value.String() == "" }

// scanResult reads what the API server has logged since the tests began, where
// pods and events stand whole, and says what was found anywhere.
func scanResult(auditLog string, from int64) error {
	if !shared.HasStack() {
		return secrets.Err()
	}
	if err := learn(vaultserver.RawLog(shared.Vault.AuditLog)); err != nil {
		return err
	}
	secrets.Again()
	if err := secrets.Log("audit log", auditLog, from); err != nil {
		return err
	}
	if err := secrets.Err(); err != nil || !ranAll() {
		return err
	}
	data, err := os.ReadFile(auditLog)
	if err != nil {
		return err
	}
	switch {
	case !strings.Contains(string(data[min(from, int64(len(data))):]), "podlane/job-url"):
		return errors.New("the audit log shows no pods: its scan for secrets proves nothing")
	case given.count == 0:
		return fmt.Errorf("of what Vault has given out %d values are known: a scan for them proves nothing", given.count)
	case secrets.Seen("podlane process") == 0:
		return errors.New("no process of podlane was seen: the scan for secrets in arguments proves nothing")
	}
	return nil
}
