// Command minio is MinIO's server under the flags of its own, and one thing
// more: "minio adduser", because the API for that takes encrypted requests.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/minio/madmin-go/v3"
	"github.com/minio/minio-go/v7/pkg/credentials"
	minio "github.com/minio/minio/cmd"
)

func main() {
	if len(os.Args) < 2 || os.Args[1] != "adduser" {
		minio.Main(os.Args)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	err := addUser(ctx, os.Args[2:])
	cancel()
	if err != nil {
		fmt.Fprintf(os.Stderr, "minio adduser: %v\n", err)
		os.Exit(1)
	}
}

// addUser makes a user who may read and write all buckets.
func addUser(ctx context.Context, args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("%d arguments, expected: <host:port> <root user> <root password file> <user> <password file>", len(args))
	}
	rootPassword, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	password, err := os.ReadFile(args[4])
	if err != nil {
		return err
	}
	client, err := madmin.NewWithOptions(args[0], &madmin.Options{Creds: credentials.NewStaticV4(args[1], string(rootPassword), "")})
	if err != nil {
		return err
	}
	if err := client.AddUser(ctx, args[3], string(password)); err != nil {
		return fmt.Errorf("add %s: %w", args[3], err)
	}
	if err := client.SetPolicy(ctx, "readwrite", args[3], false); err != nil {
		return fmt.Errorf("let %s read and write: %w", args[3], err)
	}
	return nil
}
