package bed

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"podlane/test/stack/stackenv"
)

// Settings are tables of podlane.toml: table, key, value in TOML's notation. What
// follows a "#" in a table's name only tells tables of a list apart: "[grants]#db".
// "@BED@" stands for the bed's name, with which its mounts in Vault end.
type Settings map[string]map[string]string

// writeSettings writes the settings of podlane and those of people.
func (b *Bed) writeSettings(over Settings) error {
	b.Config, b.PeopleConfig = filepath.Join(b.Dir, "podlane.toml"), filepath.Join(b.Dir, "people.toml")
	credentials := Settings{}
	if b.Vault != nil {
		credentials.merge(b.Vault.settings())
	}
	if b.S3 != nil {
		credentials.merge(b.S3.settings())
	}
	return errors.Join(
		os.WriteFile(b.Config, []byte(b.settings(credentials, over)), 0o600),
		os.WriteFile(b.PeopleConfig, []byte(b.settings(over)), 0o600),
	)
}

// settings are podlane.toml for where the bed runs, with the given values in the
// place of the bed's own.
func (b *Bed) settings(over ...Settings) string {
	all := Settings{
		"kubernetes": {"kubeconfig": quote(b.place.productKubeconfig), "namespace": quote(b.place.namespace)},
		"job": {
			"image":        quote(stackenv.ImageJob),
			"helper_image": quote(stackenv.ImageHelper),
			"cancel_grace": quote("3s"),
		},
		// Ten jobs fit on two cores, and yet get their share of a busy machine: with
		// 10m each, an upload of a second took twenty while tests were compiled.
		"resources.build":  {"cpu_request": quote("100m"), "memory_request": quote("16Mi")},
		"resources.helper": {"cpu_request": quote("50m"), "memory_request": quote("16Mi")},
	}
	for _, o := range over {
		all.merge(o)
	}
	var text strings.Builder
	for _, table := range slices.Sorted(maps.Keys(all)) {
		name, _, _ := strings.Cut(table, "#")
		fmt.Fprintf(&text, "[%s]\n", name)
		for _, key := range slices.Sorted(maps.Keys(all[table])) {
			fmt.Fprintf(&text, "%s = %s\n", key, strings.ReplaceAll(all[table][key], "@BED@", b.name()))
		}
	}
	return text.String()
}

func (s Settings) clone() Settings {
	c := Settings{}
	c.merge(s)
	return c
}

// merge lays other settings over these.
func (s Settings) merge(over Settings) {
	for table, values := range over {
		if s[table] == nil {
			s[table] = map[string]string{}
		}
		maps.Copy(s[table], values)
	}
}

func quote(s string) string { return fmt.Sprintf("%q", s) }
