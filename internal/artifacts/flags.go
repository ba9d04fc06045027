package artifacts

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// Variables that the runner's own program reads where the
// scripts pass no flag (gitlab-runner common/network.go JobCredentials,
// artifacts_uploader.go, artifacts_downloader.go).
const (
	envCAFile           = "CI_SERVER_TLS_CA_FILE"
	envCertFile         = "CI_SERVER_TLS_CERT_FILE"
	envKeyFile          = "CI_SERVER_TLS_KEY_FILE"
	envCompressionLevel = "ARTIFACT_COMPRESSION_LEVEL"
	envDirectDownload   = "FF_USE_DIRECT_DOWNLOAD"
	envStagingDir       = "ARCHIVER_STAGING_DIR"
	envRunnerVersion    = "CI_RUNNER_VERSION"
)

// credentials say which job of which GitLab.
type credentials struct {
	url, token                string
	id                        int64
	caFile, certFile, keyFile string
}

func (c *credentials) register(set *flag.FlagSet, config Config) {
	set.StringVar(&c.url, "url", "", "GitLab's address")
	set.StringVar(&c.token, "token", "", "the job's token")
	set.Int64Var(&c.id, "id", 0, "the job's id")
	set.StringVar(&c.caFile, "tls-ca-file", config.getenv(envCAFile), "certificates to trust beside the system's")
	set.StringVar(&c.certFile, "tls-cert-file", config.getenv(envCertFile), "client certificate")
	set.StringVar(&c.keyFile, "tls-key-file", config.getenv(envKeyFile), "key of the client certificate")
}

func (c *credentials) check() error {
	var missing []string
	if c.url == "" {
		missing = append(missing, "--url")
	}
	if c.token == "" {
		missing = append(missing, "--token")
	}
	if c.id <= 0 {
		missing = append(missing, "--id")
	}
	if missing != nil {
		return fmt.Errorf("missing %s", strings.Join(missing, ", "))
	}
	return nil
}

// stringList is a flag that may be given several times.
type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

func (l *stringList) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// parse reads args into set. Asked for help it prints the flags and returns
// [flag.ErrHelp].
func parse(set *flag.FlagSet, args []string, stdout io.Writer) error {
	set.SetOutput(io.Discard) // parse errors come back as errors; usage would bury them
	set.Usage = func() {}
	err := set.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		set.SetOutput(stdout)
		set.PrintDefaults()
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w", set.Name(), err)
	}
	if set.NArg() > 0 {
		return fmt.Errorf("%s: argument %q not expected: everything is given as --flag", set.Name(), set.Arg(0))
	}
	return nil
}

// uploadFlags are the flags of artifacts-uploader.
type uploadFlags struct {
	credentials
	selection
	name, expireIn, format, kind string
	compressionLevel             string
	timeout, headerTimeout       time.Duration
	provenance                   provenance
}

func parseUploadFlags(config Config, args []string, stdout io.Writer) (*uploadFlags, error) {
	f := &uploadFlags{}
	set := flag.NewFlagSet("artifacts-uploader", flag.ContinueOnError)
	f.credentials.register(set, config)
	f.selection.register(set)
	f.provenance.register(set)
	set.StringVar(&f.name, "name", "artifacts", "the archive's name, without its ending")
	set.StringVar(&f.expireIn, "expire-in", "", "when GitLab may delete the artifacts")
	set.StringVar(&f.format, "artifact-format", "", "zip, gzip or raw; empty means zip")
	set.StringVar(&f.kind, "artifact-type", "", "what the artifacts are to GitLab: archive, junit, ...")
	set.StringVar(&f.compressionLevel, "compression-level", config.getenv(envCompressionLevel), "fastest, fast, default, slow or slowest")
	// The defaults are common/consts.go's DefaultArtifactUploadTimeout and
	// DefaultArtifactResponseHeaderTimeout.
	set.DurationVar(&f.timeout, "timeout", time.Hour, "limit of one attempt")
	set.DurationVar(&f.headerTimeout, "response-header-timeout", 10*time.Minute, "limit of the wait for GitLab's answer after the last byte")
	set.Bool("ci-debug-trace", false, "accepted, without effect")
	set.Duration("transfer-meter-frequency", 0, "accepted, without effect")
	if err := parse(set, args, stdout); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("artifacts-uploader: %w", err)
	}
	return f, nil
}

// downloadFlags are the flags of artifacts-downloader.
type downloadFlags struct {
	credentials
	direct     bool
	retries    int
	retryTime  time.Duration
	stagingDir string
}

func parseDownloadFlags(config Config, args []string, stdout io.Writer) (*downloadFlags, error) {
	f := &downloadFlags{}
	set := flag.NewFlagSet("artifacts-downloader", flag.ContinueOnError)
	f.credentials.register(set, config)
	set.BoolVar(&f.direct, "direct-download", isTrue(config.getenv(envDirectDownload)), "let GitLab redirect the first attempt to its object storage")
	set.IntVar(&f.retries, "retry", attempts-1, "attempts after the first")
	set.DurationVar(&f.retryTime, "retry-time", config.retryDelay, "wait before the second attempt")
	set.StringVar(&f.stagingDir, "archiver-staging-dir", config.getenv(envStagingDir), "where the archive lies until it is extracted; empty means the system's place")
	set.Duration("transfer-meter-frequency", 0, "accepted, without effect")
	if err := parse(set, args, stdout); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("artifacts-downloader: %w", err)
	}
	return f, nil
}

func isTrue(value string) bool { return value == "1" || strings.EqualFold(value, "true") }
