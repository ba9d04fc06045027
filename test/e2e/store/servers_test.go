// Package store holds what cacheclient/store promises about any S3 server
// against two real ones.
package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"podlane/cacheclient/store"
	"podlane/internal/redact"
	"podlane/test/stack/stackenv"
)

// server is an S3 server and who may do everything there.
type server struct {
	Address   string
	AccessKey string
	SecretKey string
}

func (s server) credentials() store.Credentials {
	return store.Credentials{AccessKey: s.AccessKey, SecretKey: redact.New(s.SecretKey)}
}

func (s server) config(bucket string) store.Config {
	return store.Config{Endpoint: s.Address, Region: stackenv.S3Region, Bucket: bucket, PathStyle: true}
}

func open(t *testing.T, config store.Config, source store.Source) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), config, source)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// newBucket makes a bucket of the test's own. The servers are thrown away with
// what is in them.
func (s server) newBucket(t *testing.T) (string, *store.Store) {
	t.Helper()
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Address), UsePathStyle: true, Region: stackenv.S3Region,
		Credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
	})
	bucket := "test-" + strings.ToLower(rand.Text())
	_, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket})
	must(t, err)
	return bucket, open(t, s.config(bucket), store.Fixed(s.credentials()))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// onAll runs a test against each server.
func onAll(t *testing.T, test func(t *testing.T, s server)) {
	t.Helper()
	for name, start := range map[string]func(*testing.T) server{"minio": minio, "versitygw": versitygw} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

func stackOf(t *testing.T) stackenv.Stack {
	t.Helper()
	if os.Getenv("PODLANE_E2E_CLUSTER") != "" {
		t.Skip("these tests need the stack's S3 server")
	}
	number, err := stackenv.ParseNumber(os.Getenv("PODLANE_STACK"))
	must(t, err)
	root, err := stackenv.FindRoot(".")
	must(t, err)
	stack, err := stackenv.New(root, number)
	must(t, err)
	return stack
}

// minio is the stack's.
func minio(t *testing.T) server {
	t.Helper()
	stack := stackOf(t)
	password, err := os.ReadFile(stack.S3RootPasswordFile)
	must(t, err)
	return server{Address: stack.S3Address, AccessKey: stackenv.S3RootUser, SecretKey: string(password)}
}

// gateway is the versitygw that all tests share.
var gateway struct {
	sync.Mutex
	server
	stop func() error
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if gateway.stop != nil {
		if err := gateway.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func versitygw(t *testing.T) server {
	t.Helper()
	stack := stackOf(t)
	gateway.Lock()
	defer gateway.Unlock()
	if gateway.stop == nil && gateway.err == nil {
		gateway.err = startGateway(stack)
	}
	must(t, gateway.err)
	return gateway.server
}

// startLimit is for a machine that has other things to do; buildLimit for one
// that has never built the program.
const (
	buildLimit = 20 * time.Minute
	startLimit = 2 * time.Minute
)

func startGateway(stack stackenv.Stack) error {
	program, err := gatewayProgram(stack)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "podlane-versitygw-")
	if err != nil {
		return err
	}
	for _, sub := range []string{"objects", "metadata"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	port, err := stack.SparePort()
	if err != nil {
		return err
	}
	gateway.server = server{Address: "http://" + port.Address, AccessKey: "gateway", SecretKey: rand.Text()}
	// What it stores beside an object goes into a folder: not every file
	// system has extended attributes.
	cmd := exec.CommandContext(context.Background(), program, "--port", port.Address, "--region", stackenv.S3Region, "--quiet",
		"posix", "--sidecar", filepath.Join(dir, "metadata"), filepath.Join(dir, "objects"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+gateway.AccessKey, "ROOT_SECRET_KEY="+gateway.SecretKey)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	gateway.stop = func() error {
		_ = cmd.Process.Kill()
		<-ended
		return errors.Join(port.Release(), os.RemoveAll(dir))
	}
	if err := awaitAnswer(gateway.Address, ended); err != nil {
		stopped := gateway.stop()
		gateway.stop = nil
		return errors.Join(fmt.Errorf("versitygw: %w: %s", err, output.String()), stopped)
	}
	return nil
}

func gatewayProgram(stack stackenv.Stack) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", "./test/stack", "program", "versitygw")
	cmd.Dir = stack.Root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build versitygw: %w\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// awaitAnswer waits until a server says anything in HTTP.
func awaitAnswer(address string, ended <-chan struct{}) error {
	deadline := time.After(startLimit)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}}
	for {
		resp, err := client.Get(address)
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-ended:
			return errors.New("it has ended")
		case <-deadline:
			return fmt.Errorf("no answer within %v: %w", startLimit, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
