package board

import (
	"fmt"
	"io"

	"github.com/BurntSushi/toml"
)

// Load records the deployments of a file in TOML:
//
//	[[deployments]]
//	service = "web"
//	version = "1.4"
//	at = 2026-05-01T12:00:00Z
func (b *Board) Load(r io.Reader) error {
	var file struct {
		Deployments []Deployment `toml:"deployments"`
	}
	meta, err := toml.NewDecoder(r).Decode(&file)
	if err != nil {
		return err
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return fmt.Errorf("unknown key %s", unknown[0])
	}
	for _, d := range file.Deployments {
		if err := b.Record(d.Service, d.Version, d.At); err != nil {
			return err
		}
	}
	return nil
}
