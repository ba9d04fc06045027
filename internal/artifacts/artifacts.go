// Package artifacts sends a job's artifacts to GitLab and fetches those of
// other jobs. It answers the two commands that the runner's scripts call under
// the name gitlab-runner, where a helper image does not bring GitLab's own
// program: artifacts-uploader and artifacts-downloader. Flags, messages and
// exit codes are the runner's (gitlab-runner commands/helpers/
// artifacts_uploader.go, artifacts_downloader.go, v19.4).
//
// The parts, in the order in which an upload uses them: find.go decides which
// files are meant, pack.go writes them in one of GitLab's formats, upload.go
// sends that stream, client.go and retry.go are what uploads and downloads
// share. A download uses download.go and then extract.go.
package artifacts

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Config is what a caller takes from its surroundings. The zero value works in
// the current directory and knows no variables.
type Config struct {
	// Dir is the job's project directory: the root that paths are relative to
	// and that nothing leaves. Empty means the current directory.
	Dir string
	// Env holds the job's variables as "NAME=value", like os.Environ. Some
	// stand in for flags that the runner's scripts do not pass (flags.go has
	// the list), and names and paths may refer to all.
	Env []string

	// retryDelay is the wait before the second attempt; later ones wait longer.
	retryDelay time.Duration
}

// Main runs one command: args are the arguments after the program's name. What
// the job log should show goes to stderr, as the runner does it; only help goes
// to stdout. It returns the exit code: 0, or 1 with the reason on stderr.
func (c Config) Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c = c.withDefaults()
	if len(args) == 0 {
		args = []string{""}
	}
	var err error
	switch args[0] {
	case "artifacts-uploader":
		err = c.upload(ctx, args[1:], stdout, stderr)
	case "artifacts-downloader":
		err = c.download(ctx, args[1:], stdout, stderr)
	default:
		err = fmt.Errorf("command %q is not known: this program stands in for gitlab-runner and knows artifacts-uploader and artifacts-downloader only",
			args[0])
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	newLines(stderr, tokenIn(args)).fail("%v", err)
	return 1
}

func (c Config) withDefaults() Config {
	if c.Dir == "" {
		c.Dir = "."
	}
	if c.retryDelay == 0 {
		c.retryDelay = time.Second // as the runner waits
	}
	return c
}

// getenv returns a variable's value; of several the last one counts, as it does
// for a process.
func (c Config) getenv(name string) string {
	for _, entry := range slices.Backward(c.Env) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// openDir opens the project directory; everything below works through it.
func (c Config) openDir() (*os.Root, error) {
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the project directory: %w", err)
	}
	return root, nil
}
