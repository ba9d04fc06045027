package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"podlane/cacheclient/store"
	"podlane/internal/redact"
)

// bucket says where objects are. Subjects get it on their command line: it is a
// test server's.
type bucket struct {
	Endpoint, Region, Name, User, Password string
}

// at is the same bucket by another way.
func (b bucket) at(endpoint string) bucket {
	b.Endpoint = endpoint
	return b
}

func (b bucket) open(ctx context.Context) (*store.Store, error) {
	return store.Open(ctx, store.Config{Endpoint: b.Endpoint, Region: b.Region, Bucket: b.Name, PathStyle: true},
		store.Fixed(store.Credentials{AccessKey: b.User, SecretKey: redact.New(b.Password)}))
}

func (b bucket) client() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &b.Endpoint, Region: b.Region, UsePathStyle: true,
		Credentials:                credentials.NewStaticCredentialsProvider(b.User, b.Password, ""),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
	})
}

// signed is a URL for a whole object.
func (b bucket) signed(ctx context.Context, method, object string) (string, error) {
	p := s3.NewPresignClient(b.client(), s3.WithPresignExpires(time.Hour))
	if method == http.MethodPut {
		r, err := p.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: &b.Name, Key: &object})
		if err != nil {
			return "", err
		}
		return r.URL, nil
	}
	r, err := p.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: &b.Name, Key: &object})
	if err != nil {
		return "", err
	}
	return r.URL, nil
}

func (b bucket) encode() string {
	text, _ := json.Marshal(b)
	return string(text)
}

func decodeBucket(text string) (b bucket, err error) {
	err = json.Unmarshal([]byte(text), &b)
	return b, err
}

// server is the S3 server and the proxies before it.
type server struct {
	process *exec.Cmd
	proxies []*farWay
}

// startS3 starts a server, with one connection to it that is like this machine's
// own and others that are like a network.
func startS3(ctx context.Context, b *bench) (*server, error) {
	s := &server{}
	if err := s.start(ctx, b); err != nil {
		return nil, err
	}
	b.server = s
	_, err := b.bucket.client().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &b.bucket.Name})
	var mine *types.BucketAlreadyOwnedByYou
	if err != nil && !errors.As(err, &mine) {
		return nil, errors.Join(fmt.Errorf("create a bucket: %w", err), s.close())
	}
	at, err := url.Parse(b.bucket.Endpoint)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	for _, latency := range []time.Duration{5 * time.Millisecond, 30 * time.Millisecond} {
		p, err := startProxy(b.self, at.Host, latency, 100_000_000)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.proxies = append(s.proxies, p)
	}
	return s, nil
}

func (s *server) start(ctx context.Context, b *bench) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := l.Addr().String()
	l.Close()
	// In memory, as the disk under an S3 server is none of what is measured, and
	// ext4 is slow after the deletes that overwriting an object means.
	data := filepath.Join(b.trees("tmpfs"), "s3")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	b.bucket = bucket{Endpoint: "http://" + address, Region: "us-east-1", Name: "bench-cache", User: "bench-root", Password: "bench-password"}
	s.process = exec.Command(b.minio, "server", "--quiet", "--address", address, data)                               //nolint:noctx // close ends it
	s.process.Env = append(os.Environ(), "MINIO_ROOT_USER="+b.bucket.User, "MINIO_ROOT_PASSWORD="+b.bucket.Password, //nolint:forbidigo // the program's own
		"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_SCANNER_SPEED=slowest", "MINIO_CI_CD=on")
	if err := s.process.Start(); err != nil {
		return err
	}
	for range 600 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.bucket.Endpoint+"/minio/health/ready", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.Join(errors.New("minio is not ready after a minute"), s.close())
}

// cpu is the processor time that the server has had so far.
func (s *server) cpu() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	_, text, ok := bytes.Cut(text, []byte(") ")) // behind the program's name
	fields := bytes.Fields(text)
	if err != nil || !ok || len(fields) < 13 {
		return 0
	}
	const ticks = 100 // a second, on all Linux that Go knows
	user, _ := strconv.Atoi(string(fields[11]))
	system, _ := strconv.Atoi(string(fields[12]))
	return float64(user+system) / ticks
}

func (s *server) close() error {
	for _, p := range s.proxies {
		p.close()
	}
	if s.process == nil {
		return nil
	}
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_ = s.process.Wait()
	return nil
}
