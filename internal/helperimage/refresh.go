package helperimage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ulikunitz/xz"
)

// archives are where the release's packages are; later ones take precedence.
var archives = []struct{ name, suite string }{
	{"debian", Suite},
	{"debian-security", Suite + "-security"},
}

const maxIndex = 256 << 20

// Refresh chooses the packages anew, as they are today. gpgv and Debian's
// keyring decide whether the mirror's word is Debian's.
func (s Source) Refresh(ctx context.Context, keyring string) (Lock, error) {
	lock := Lock{Date: time.Now().UTC().Truncate(24 * time.Hour)}
	for _, arch := range Arches {
		known := map[string]offer{}
		for _, a := range archives {
			if err := s.index(ctx, keyring, a.name, a.suite, arch, known); err != nil {
				return Lock{}, err
			}
		}
		chosen, err := choose(known)
		if err != nil {
			return Lock{}, err
		}
		lock.Packages = append(lock.Packages, chosen...)
	}
	return lock, nil
}

// offer is a package in an index with what it depends on.
type offer struct {
	Package
	depends []string
}

// index adds what an archive offers.
func (s Source) index(ctx context.Context, keyring, archive, suite, arch string, known map[string]offer) error {
	base := strings.TrimSuffix(s.Mirror, "/") + "/" + archive + "/dists/" + suite + "/"
	signed, err := get(ctx, base+"InRelease", maxIndex)
	if err != nil {
		return err
	}
	release, err := verify(ctx, keyring, signed)
	if err != nil {
		return fmt.Errorf("%sInRelease: %w", base, err)
	}
	name := "main/binary-" + arch + "/Packages.xz"
	compressed, err := get(ctx, base+name, maxIndex)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(compressed)
	if !strings.Contains(string(release), fmt.Sprintf(" %x %8d %s\n", sum, len(compressed), name)) {
		return fmt.Errorf("%s%s is not the one that InRelease speaks of", base, name)
	}
	reader, err := xz.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(reader)
	if err != nil {
		return err
	}
	for paragraph := range strings.SplitSeq(string(text), "\n\n") {
		o, err := parseOffer(paragraph)
		if err != nil {
			return err
		}
		if o.Name == "" {
			continue
		}
		o.Archive, o.Arch = archive, arch
		known[o.Name] = o
	}
	return nil
}

// verify returns what was signed, without the signature.
func verify(ctx context.Context, keyring string, signed []byte) ([]byte, error) {
	dir, err := os.MkdirTemp("", "podlane-release")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, signed, 0o600); err != nil {
		return nil, err
	}
	if text, err := exec.CommandContext(ctx, "gpgv", "--keyring", keyring, "--output", out, in).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gpgv: %w: %s", err, bytes.TrimSpace(text))
	}
	return os.ReadFile(out)
}

// parseOffer reads a paragraph of Packages.
func parseOffer(paragraph string) (offer, error) {
	var o offer
	for line := range strings.Lines(paragraph) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch key {
		case "Package":
			o.Name = value
		case "Version":
			o.Version = value
		case "SHA256":
			o.SHA256 = value
		case "Filename":
			o.Path = value
		case "Size":
			size, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return offer{}, err
			}
			o.Size = size
		case "Depends", "Pre-Depends":
			o.depends = append(o.depends, dependencies(value)...)
		}
	}
	return o, nil
}

// dependencies are names of packages; of several that would do, the first.
func dependencies(field string) []string {
	var out []string
	for item := range strings.SplitSeq(field, ",") {
		if words := strings.FieldsFunc(item, func(r rune) bool { return strings.ContainsRune(" (|:", r) }); len(words) > 0 {
			out = append(out, words[0])
		}
	}
	return out
}

// choose returns the seeds and what they need, by name.
func choose(known map[string]offer) ([]Package, error) {
	chosen := map[string]bool{}
	var out []Package
	for todo := slices.Clone(seeds); len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if chosen[name] || slices.Contains(without, name) {
			continue
		}
		o, there := known[name]
		if !there {
			return nil, fmt.Errorf("there is no package %s", name)
		}
		if _, err := hex.DecodeString(o.SHA256); err != nil || o.Path == "" {
			return nil, errors.New("the index says neither where package " + name + " is nor what its digest is")
		}
		chosen[name] = true
		out = append(out, o.Package)
		todo = append(todo, o.depends...)
	}
	slices.SortFunc(out, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
