// Command helper-image makes the helper image, or chooses its packages anew:
// docs/helper-image.md.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"podlane/internal/helperimage"
)

func main() {
	if err := command().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "helper-image: error: %v\n", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var (
		source                               helperimage.Source
		out, helpers, version, lock, keyring string
		refresh                              bool
	)
	cmd := &cobra.Command{
		Use: "helper-image", Short: "Make the helper image, without a container daemon", Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if refresh {
				chosen, err := source.Refresh(cmd.Context(), keyring)
				if err != nil {
					return err
				}
				return os.WriteFile(lock, []byte(chosen.String()), 0o644)
			}
			pinned, err := helperimage.Pinned()
			if err != nil {
				return err
			}
			digest, err := helperimage.Write(cmd.Context(), out, version, source, pinned, func(arch string) string {
				return filepath.Join(helpers, "podlane-helper-"+arch)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", out, digest)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "bin/helper-image", "the folder that becomes an OCI layout")
	f.StringVar(&helpers, "helpers", "bin", "where podlane-helper-ARCH are")
	f.StringVar(&version, "version", "dev", "the image's version")
	f.StringVar(&source.Mirror, "mirror", helperimage.DefaultMirror, "a URL with debian/ and debian-security/ below it")
	f.StringVar(&source.Cache, "cache", ".local/packages", "a folder that keeps packages")
	f.BoolVar(&refresh, "refresh", false, "choose the packages anew and write the lock file")
	f.StringVar(&lock, "lock", "internal/helperimage/packages.lock", "the lock file")
	f.StringVar(&keyring, "keyring", "/usr/share/keyrings/debian-archive-keyring.gpg", "whose signatures to trust")
	return cmd
}
