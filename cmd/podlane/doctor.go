package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"podlane/executor/doctor"
	"podlane/internal/redact"
	"podlane/internal/version"
)

// doctorReport is what -o json writes.
type doctorReport struct {
	OK      bool            `json:"ok"`
	Podlane string          `json:"podlane"`
	Checks  []doctor.Result `json:"checks"`
}

func (a *app) doctorCommand(environ []string) *cobra.Command {
	var file, variable, output, instance string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what would keep jobs from running",
		Long: `Checks settings, Vault, the cluster and the bucket: that podlane gets access to
them, and that it does not get more than it should. An id_token of a job that runs
lets it try what Vault gives. Everything it makes or gets it gives back.
See docs/doctor.md.

Reads:
  --config         the settings
  --id-token-file  a file with an id_token; - is stdin
  --id-token-env   the name of a variable with one
Writes:
  stdout           a line for each check: ✓ fine, ! worth a look, ✗ in jobs' way, and hints
Exits with 0 if there is no ✗, else with 1; 2 if it was called wrongly.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output is %q, expected text or json", output)
			}
			token, err := findToken(file, variable, environ, cmd.InOrStdin())
			if err != nil {
				return err
			}
			a.secrets.Add(token)
			report := doctorReport{Podlane: version.String(), Checks: []doctor.Result{}}
			say := func(r doctor.Result) { fmt.Fprintln(a.stdout, r) }
			if output == "json" {
				say = func(r doctor.Result) { report.Checks = append(report.Checks, r) }
			}
			report.OK = doctor.Examine(cmd.Context(), doctor.Options{
				ConfigFile: a.config, IDToken: token, Instance: instance, Secrets: a.secrets, Proxy: http.ProxyFromEnvironment,
			}, say)
			if output == "json" {
				if err := showJSON(a.stdout, report); err != nil {
					return err
				}
			}
			if !report.OK {
				return &ownExit{1}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "id-token-file", "", "a `file` with a job's id_token; - is stdin")
	cmd.Flags().StringVar(&variable, "id-token-env", "", "the `name` of a variable with a job's id_token")
	cmd.Flags().StringVar(&instance, "instance", "", "the `UUID` of GitLab's instance, where GitLab tells jobs one; caches' names have it")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "`text` or json")
	cmd.MarkFlagsMutuallyExclusive("id-token-file", "id-token-env")
	return cmd
}

// maxIDToken is far more than GitLab's have, in bytes.
const maxIDToken = 64 << 10

// findToken reads the id_token from where it was said to be; nowhere else.
func findToken(file, variable string, environ []string, stdin io.Reader) (redact.Secret, error) {
	var text string
	switch {
	case variable != "":
		for _, entry := range environ {
			if name, value, _ := strings.Cut(entry, "="); name == variable {
				text = value
			}
		}
		if text == "" {
			return redact.Secret{}, fmt.Errorf("--id-token-env: the variable %s is not set", variable)
		}
	case file != "":
		in := stdin
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return redact.Secret{}, fmt.Errorf("--id-token-file: %w", err)
			}
			defer f.Close()
			in = f
		}
		data, err := io.ReadAll(io.LimitReader(in, maxIDToken))
		if err != nil {
			return redact.Secret{}, fmt.Errorf("--id-token-file: %w", err)
		}
		if text = string(data); strings.TrimSpace(text) == "" {
			return redact.Secret{}, errors.New("--id-token-file: there is nothing in it")
		}
	}
	return redact.New(strings.TrimSpace(text)), nil
}
