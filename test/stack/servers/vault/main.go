// Command vault is HashiCorp's Vault with the engines and methods that podlane
// meets, and no others: with all of them it takes five times as long to build.
// It starts as a real one does, sealed and, at first, not initialised.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	jwt "github.com/hashicorp/vault-plugin-auth-jwt"
	kubernetes "github.com/hashicorp/vault-plugin-secrets-kubernetes"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/logical/aws"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	o := options{}
	flag.StringVar(&o.listen, "listen", "127.0.0.1:8200", "`address` of the API")
	flag.StringVar(&o.data, "data", "", "`folder` of the encrypted data")
	flag.StringVar(&o.certificate, "tls-cert", "", "`file` with the certificate; without one the API is plain HTTP")
	flag.StringVar(&o.key, "tls-key", "", "`file` with the certificate's key")
	flag.Parse()
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "vault: error: %v\n", err)
		os.Exit(1)
	}
}

type options struct{ listen, data, certificate, key string }

func run(ctx context.Context, o options) error {
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: os.Stderr})
	storage, err := file.NewFileBackend(map[string]string{"path": o.data}, logger.Named("storage"))
	if err != nil {
		return fmt.Errorf("open %s: %w", o.data, err)
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	scheme := "http://"
	if o.certificate != "" {
		scheme = "https://"
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical: storage, StorageType: "file", Logger: logger,
		DisableMlock: true, EnableUI: false, EnableRaw: false,
		LogicalBackends:    map[string]logical.Factory{"kv": kv.Factory, "aws": aws.Factory, "kubernetes": kubernetes.Factory},
		CredentialBackends: map[string]logical.Factory{"jwt": jwt.Factory},
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
		BuiltinRegistry:    plugins{},
		RedirectAddr:       scheme + o.listen,
		DefaultLeaseTTL:    20 * time.Minute, MaxLeaseTTL: 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	serve := func() error { return server.Serve(listener) }
	if o.certificate != "" {
		serve = func() error { return server.ServeTLS(listener, o.certificate, o.key) }
	}
	done := make(chan error, 1)
	go func() { done <- serve() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = server.Close()
	}
	return errors.Join(err, core.Shutdown())
}
