// Package bed puts the pieces together that the end-to-end tests, the demo and
// the bench need: a simulated GitLab that pods can reach, a runner that calls
// the real podlane, and the cluster of the running test stack.
package bed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"podlane/cacheclient/key"
	"podlane/test/gitlabsim"
	"podlane/test/runnersim"
	"podlane/test/stack/stackenv"
	"podlane/test/stack/vaultserver"
)

// Options of a bed. Zero values are fine.
type Options struct {
	// Root is a folder inside the checkout.
	Root string
	// Environ is the process's environment: PODLANE_STACK, GITLAB_RUNNER and
	// what podlane inherits.
	Environ []string
	// Settings is TOML that is merged over the bed's own podlane.toml, table by
	// table: see Settings.
	Settings Settings
	// Concurrent is how many jobs the runner takes at once; 4 if 0.
	Concurrent int
	// Log gets the runner's own log.
	Log io.Writer
	// Hooks look at the driver calls of the simulated runner.
	Hooks runnersim.Hooks
	// Tune changes the runner's configuration before it starts.
	Tune func(*runnersim.Config)
	// NoVault gives podlane a kubeconfig, and no caches, as on a cluster that is
	// not the test stack. Settings with a kubernetes.kubeconfig do the same.
	NoVault bool
	// OwnVault takes the place of the stack's Vault: for tests that seal or stop
	// it.
	OwnVault *vaultserver.Server
	// VaultFlags are further options of scripts/vault-bootstrap.
	VaultFlags []string
}

// Bed is a running bed.
type Bed struct {
	// Stack is empty on a cluster that is not the test stack: see HasStack.
	Stack  stackenv.Stack
	GitLab *gitlabsim.Server
	Kube   *Kube
	// Vault and S3 are nil where podlane works without.
	Vault *Vault
	S3    *S3
	// Dir holds the runner's temporary files and podlane.toml.
	Dir string
	// Podlane is the program under test, Config its settings.
	Podlane, Config string
	// PeopleConfig are the settings of people who call it by hand: they have a
	// kubeconfig, and no id_token.
	PeopleConfig string

	environ []string
	place   place

	leaveVault func() error
	gate       *gate

	stop   context.CancelFunc
	runner sync.WaitGroup
	err    error
}

// Start starts a GitLab and a runner against the stack that PODLANE_STACK
// names, which must be up, or against the cluster in KUBECONFIG.
func Start(ctx context.Context, o Options) (b *Bed, err error) {
	at, stack, err := findPlace(ctx, o)
	if err != nil {
		return nil, err
	}
	b = &Bed{environ: o.Environ, place: at, Stack: stack, Podlane: filepath.Join(at.root, "bin", "podlane")}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.Kube, err = connect(at.adminKubeconfig, at.namespace); err != nil {
		return b, err
	}
	if err := b.checkCluster(ctx); err != nil {
		return b, err
	}
	if b.Dir, err = os.MkdirTemp("", dirPrefix); err != nil {
		return b, err
	}
	if b.gate, err = openGate(ctx, at.address); err != nil {
		return b, err
	}
	if b.GitLab, err = gitlabsim.Start(ctx, gitlabsim.Options{Addr: net.JoinHostPort(at.address, "0"), UpdateInterval: time.Second}); err != nil {
		return b, err
	}
	if b.HasStack() && !o.NoVault && o.Settings["kubernetes"]["kubeconfig"] == "" {
		if err := b.openCredentials(ctx, o); err != nil {
			return b, err
		}
	}
	if err := b.writeSettings(o.Settings); err != nil {
		return b, err
	}
	return b, b.startRunner(ctx, o)
}

// openCredentials sets up what podlane gets its credentials from.
func (b *Bed) openCredentials(ctx context.Context, o Options) (err error) {
	if b.Vault, err = openVault(ctx, b, o); err != nil {
		return err
	}
	b.leaveVault = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		return b.Vault.close(ctx)
	}
	if b.S3, err = openS3(b.Stack); err != nil {
		return err
	}
	b.S3.Prefix += key.Instance(b.Vault.Instance) + "/"
	return nil
}

// dirPrefix is what the folders of all beds begin with.
const dirPrefix = "podlane-bed-"

// name tells the bed from all others of the stack, also from those that have
// just ended: unlike a port, no folder's random name comes again.
func (b *Bed) name() string { return strings.TrimPrefix(filepath.Base(b.Dir), dirPrefix) }

// IDTokens are what a job declares so that podlane can log in to Vault; nil
// where there is none.
func (b *Bed) IDTokens() map[string]gitlabsim.IDToken {
	if b.Vault == nil {
		return nil
	}
	return map[string]gitlabsim.IDToken{"VAULT_ID_TOKEN": {Aud: []string{Audience}}}
}

// AddProject makes a project that has caches, where the bed has them.
func (b *Bed) AddProject(ctx context.Context, spec gitlabsim.ProjectSpec) (*gitlabsim.Project, error) {
	p, err := b.GitLab.AddProject(ctx, spec)
	if err != nil || b.Vault == nil {
		return p, err
	}
	return p, b.Vault.AddProject(ctx, p)
}

// checkCluster says at once what all tests would say at their end. A stack that
// has been taken down leaves its files; an account on another cluster may lack
// rights.
func (b *Bed) checkCluster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := b.Kube.Pods(ctx, "")
	if err == nil {
		_, err = b.Kube.Secrets(ctx, "")
	}
	switch {
	case err == nil:
		return nil
	case b.HasStack():
		return fmt.Errorf("look at the test bed's cluster: %w; hint: make up", err)
	default:
		return fmt.Errorf("look at the cluster in KUBECONFIG: %w", err)
	}
}

// startRunner starts the runner: GITLAB_RUNNER if that names one, else the
// simulated one.
func (b *Bed) startRunner(ctx context.Context, o Options) error {
	call := func(stage string) []string { return []string{stage} }
	config := runnersim.Config{
		URL:        b.GitLab.URL(),
		Token:      b.GitLab.RunnerToken(),
		Name:       "test runner",
		Concurrent: cmp.Or(o.Concurrent, 4),
		TempDir:    b.Dir,
		Environ:    append(o.Environ[:len(o.Environ):len(o.Environ)], "PODLANE_CONFIG="+b.Config),
		Custom: runnersim.Custom{
			ConfigExec: b.Podlane, ConfigArgs: call("config"),
			PrepareExec: b.Podlane, PrepareArgs: call("prepare"),
			RunExec: b.Podlane, RunArgs: call("run"),
			CleanupExec: b.Podlane, CleanupArgs: call("cleanup"), CleanupTimeout: 90 * time.Second,
			GracefulKillTimeout: time.Minute,
		},
		CheckInterval:  200 * time.Millisecond,
		UpdateInterval: 200 * time.Millisecond,
		Log:            o.Log,
		Hooks:          o.Hooks,
	}
	if config.Log == nil {
		config.Log = io.Discard
	}
	if o.Tune != nil {
		o.Tune(&config)
	}
	runner, err := runnersim.Open(lookup(o.Environ, "GITLAB_RUNNER"), config)
	if err != nil {
		return err
	}
	ctx, b.stop = context.WithCancel(context.WithoutCancel(ctx))
	b.runner.Go(func() { b.err = runner.Run(ctx) })
	return nil
}

// AdminKubeconfig is an administrator's: for tests of what podlane's own account
// may not do.
func (b *Bed) AdminKubeconfig() string { return b.place.adminKubeconfig }

// Root is the checkout's folder.
func (b *Bed) Root() string { return b.place.root }

// HasStack tells whether the bed runs on the test stack, with its registry, its
// audit log and its containerd.
func (b *Bed) HasStack() bool { return b.Stack.Dir != "" }

// closeLimit is for Vault to forget a bed: it revokes its leases one by one.
const closeLimit = time.Minute

// Close stops the runner, which cleans up after its jobs, and GitLab, and
// takes the bed's things out of Vault.
func (b *Bed) Close() error {
	if b.stop != nil {
		b.stop()
		b.runner.Wait()
	}
	var err error
	if b.leaveVault != nil {
		err = b.leaveVault()
	}
	if b.GitLab != nil {
		err = errors.Join(err, b.GitLab.Close())
	}
	if b.gate != nil {
		err = errors.Join(err, b.gate.close())
	}
	if b.Dir != "" {
		err = errors.Join(err, os.RemoveAll(b.Dir))
	}
	return errors.Join(b.err, err)
}

// Call runs a stage of podlane by hand, as people on call do, for the job
// whose response is in dir/response.json.
func (b *Bed) Call(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := b.Command(ctx, dir, args...).CombinedOutput()
	return string(out), err
}

// Command is what Call runs.
func (b *Bed) Command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.Podlane, args...)
	cmd.Dir = dir
	cmd.Env = append(b.environ[:len(b.environ):len(b.environ)], "PODLANE_CONFIG="+b.PeopleConfig, "TMPDIR="+dir,
		"JOB_RESPONSE_FILE="+filepath.Join(dir, "response.json"), "BUILD_EXIT_CODE_FILE="+filepath.Join(dir, "build_exit_code"))
	return cmd
}
