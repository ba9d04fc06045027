package helperimage

import (
	_ "embed" // the lock file
	"fmt"
	"strconv"
	"strings"
	"time"
)

//go:embed packages.lock
var lockText string

// Lock is which packages make the image, to the byte.
type Lock struct {
	// Date is when the packages were chosen.
	Date     time.Time
	Packages []Package
}

// Package is one Debian package of one architecture.
type Package struct {
	// Archive is debian or debian-security, Path the file's place in it.
	Archive, Arch, Name, Version, SHA256 string
	Size                                 int64
	Path                                 string
}

// Pinned is the lock file of this checkout.
func Pinned() (Lock, error) {
	lock, err := ParseLock(lockText)
	if err != nil {
		return Lock{}, fmt.Errorf("internal/helperimage/packages.lock: %w", err)
	}
	return lock, nil
}

// ParseLock reads what String writes.
func ParseLock(text string) (Lock, error) {
	var lock Lock
	number := 0
	for line := range strings.Lines(text) {
		number++
		fields := strings.Fields(line)
		var err error
		switch {
		case len(fields) == 0 || strings.HasPrefix(line, "#"):
		case len(fields) == 2 && fields[0] == "date":
			lock.Date, err = time.Parse(time.DateOnly, fields[1])
		case len(fields) == 7 && len(fields[4]) == 64:
			p := Package{Archive: fields[0], Arch: fields[1], Name: fields[2], Version: fields[3], SHA256: fields[4], Path: fields[6]}
			p.Size, err = strconv.ParseInt(fields[5], 10, 64)
			lock.Packages = append(lock.Packages, p)
		default:
			err = fmt.Errorf("found %q, expected archive, architecture, name, version, SHA-256, size and path", strings.TrimSpace(line))
		}
		if err != nil {
			return Lock{}, fmt.Errorf("line %d: %w", number, err)
		}
	}
	return lock, nil
}

// String is the lock file.
func (l Lock) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "# The packages of Debian %s in the helper image: docs/helper-image.md says how this file is written anew.\n", Suite)
	fmt.Fprintf(&out, "date %s\n", l.Date.Format(time.DateOnly))
	for _, p := range l.Packages {
		fmt.Fprintln(&out, p.Archive, p.Arch, p.Name, p.Version, p.SHA256, p.Size, p.Path)
	}
	return out.String()
}

// Of returns the packages of one architecture.
func (l Lock) Of(arch string) []Package {
	var out []Package
	for _, p := range l.Packages {
		if p.Arch == arch {
			out = append(out, p)
		}
	}
	return out
}
