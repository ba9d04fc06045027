package stack

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"podlane/test/stack/stackenv"
)

// s3Dir goes with the cluster.
func s3Dir(s stackenv.Stack) string { return filepath.Join(s.Dir, "s3") }

// prepareS3 makes S3 one that works, with a user for Vault and a bucket for
// caches.
func (m *Manager) prepareS3(ctx context.Context, s3, sts part) error {
	err := await(ctx, "MinIO", startLimit, []part{s3}, func(ctx context.Context) error {
		return getOK(ctx, m.Stack.S3Address+"/minio/health/ready")
	})
	if err != nil {
		return err
	}
	s := m.Stack
	address := net.JoinHostPort(s.BridgeIP, strconv.Itoa(s.Ports.S3))
	if err := runProgram(ctx, s3.Path, "adduser", address,
		stackenv.S3RootUser, s.S3RootPasswordFile, stackenv.S3VaultUser, s.S3VaultPasswordFile); err != nil {
		return err
	}
	bootstrap := filepath.Join(s.Root, "scripts", "bucket-bootstrap")
	if err := runProgram(ctx, "sh", bootstrap, "--bucket", stackenv.S3Bucket, "--region", stackenv.S3Region,
		"--endpoint", s.S3Address, "--key-file", s.S3RootKeyFile); err != nil {
		return err
	}
	return await(ctx, "STS", startLimit, []part{sts}, func(ctx context.Context) error {
		return getOK(ctx, s.STSAddress+"/minio/health/ready")
	})
}

// writeS3Keys writes the keys as our scripts read them.
func writeS3Keys(s stackenv.Stack) error {
	for _, k := range []struct{ user, passwordFile, keyFile string }{
		{stackenv.S3RootUser, s.S3RootPasswordFile, s.S3RootKeyFile},
		{stackenv.S3VaultUser, s.S3VaultPasswordFile, s.S3VaultKeyFile},
	} {
		password, err := os.ReadFile(k.passwordFile)
		if err != nil {
			return err
		}
		if err := writeIfChanged(k.keyFile, 0o600, fmt.Appendf(nil, "%s\n%s\n", k.user, password)); err != nil {
			return err
		}
	}
	return nil
}

func runProgram(ctx context.Context, program string, args ...string) error {
	if output, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), args[0], err, bytes.TrimSpace(output))
	}
	return nil
}
