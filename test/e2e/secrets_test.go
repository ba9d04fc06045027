package e2e

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"podlane/test/bed"
	"podlane/test/e2e/secretscan"
)

// marker is the value of a masked variable that every job has. It must not turn
// up in anything that the API server stores or logs, in arguments, in logs or in
// files that are left.
var marker = "marker-" + randomHex()

// secrets watches all tests, and is asked after them.
var secrets = secretscan.New(marker)

// scanFiles looks at what jobs have left in a bed's folder. The last of them may
// still be tidying up.
func scanFiles(ctx context.Context, b *bed.Bed) error {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	return secrets.Files(ctx, b.Dir)
}

// manyJobs is how many jobs there must have been for the scan to have seen
// something of everything.
const manyJobs = 10

// scanResult reads what the API server has logged since the tests began, where
// pods and events stand whole, and says what was found anywhere.
func scanResult(auditLog string, from int64) error {
	if !shared.HasStack() {
		return secrets.Err()
	}
	if err := secrets.Log("audit log", auditLog, from); err != nil {
		return err
	}
	if err := secrets.Err(); err != nil || secrets.Seen("trace") < manyJobs {
		return err
	}
	data, err := os.ReadFile(auditLog)
	if err != nil {
		return err
	}
	switch {
	case !strings.Contains(string(data[min(from, int64(len(data))):]), "podlane/job-url"):
		return errors.New("the audit log shows no pods: its scan for secrets proves nothing")
	case secrets.Seen("podlane process") == 0:
		return errors.New("no process of podlane was seen: the scan for secrets in arguments proves nothing")
	}
	return nil
}
