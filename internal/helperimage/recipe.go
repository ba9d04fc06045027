// Package helperimage makes the helper image: git, git-lfs, CA certificates, a
// shell with its tools, and podlane-helper. It takes pinned Debian packages apart
// and needs neither a container daemon nor Debian.
package helperimage

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"podlane/internal/image"
)

// recipe is part of Key: raise it when the same packages give other files.
const recipe = "2"

// Suite is the release of Debian that packages are taken from, and suiteVersion
// its number.
const (
	Suite        = "trixie"
	suiteVersion = "13"
)

// Arches are the architectures that the image is made for, as Go and Debian
// both call them.
var Arches = []string{"amd64", "arm64"}

// seeds are the packages that we want. What they depend on comes with them.
var seeds = []string{"bash", "busybox-static", "ca-certificates", "git", "git-lfs"}

// without are packages that others depend on for what nobody does here: set-up
// by scripts, manuals, git's commands in Perl, SASL's databases.
var without = []string{
	"base-files", "debconf", "debianutils", "gcc-14-base", "git-man", "libc-bin", "libdb5.3t64", "liberror-perl",
	"libsasl2-modules-db", "openssl", "openssl-provider-legacy", "perl",
}

// unused are paths of packages that the image does without; a name that ends in
// "*" stands for all that begin so.
var unused = []string{
	"etc/bash.*", "etc/bash_completion.d/*", "etc/default/*", "etc/skel/*", "usr/bin/bashbug", "usr/bin/clear_console", "usr/bin/git-shell", "usr/bin/rbash", "usr/bin/scalar",
	"usr/lib/*/gconv/*", "usr/lib/*/audit/*", "usr/lib/*/engines-3/*", "usr/lib/*/libmvec.so*", "usr/lib/*/ossl-modules/*",
	"usr/lib/git-core/git-cvs*", "usr/lib/git-core/git-daemon", "usr/lib/git-core/git-fast-import", "usr/lib/git-core/git-http-backend",
	"usr/lib/git-core/git-http-fetch", "usr/lib/git-core/git-http-push", "usr/lib/git-core/git-imap-send", "usr/lib/git-core/git-instaweb", "usr/lib/git-core/git-p4",
	"usr/lib/git-core/git-send-email", "usr/lib/git-core/git-shell", "usr/lib/git-core/git-svn", "usr/lib/git-core/mergetools/*", "usr/lib/git-core/scalar",
	"usr/lib/systemd/*", "usr/sbin/*", "usr/share/bash-completion/*", "usr/share/bug/*", "usr/share/debianutils/*", "usr/share/git-core/contrib/*",
	"usr/share/gitweb/*", "usr/share/i18n/*", "usr/share/info/*", "usr/share/initramfs-tools/*", "usr/share/lintian/*",
	"usr/share/locale/*", "usr/share/man/*", "usr/share/menu/*", "usr/share/perl5/*", "usr/share/libgcrypt*", "var/lib/*",
}

// applets are the names under which busybox stands in for what packages don't
// bring.
var applets = []string{
	"[", "awk", "base64", "basename", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "df", "diff", "dirname", "du", "env", "expr",
	"false", "find", "getopt", "grep", "gunzip", "gzip", "head", "hostname", "id", "install", "kill", "ln", "ls", "md5sum", "mkdir", "mkfifo",
	"mktemp", "mv", "nproc", "od", "pidof", "printenv", "printf", "ps", "pwd", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "sh",
	"sha1sum", "sha256sum", "sleep", "sort", "stat", "sync", "tail", "tar", "tee", "test", "timeout", "touch", "tr", "true", "tty", "uname",
	"uniq", "unxz", "unzip", "vi", "wc", "wget", "which", "whoami", "xargs", "xzcat", "yes", "zcat",
}

// Home is everybody's: the image works as any user.
const Home = "/home/podlane"

// gitconfig knows large files without a set-up for each repository. It trusts no
// checkout of another user: what a job writes into its .git/config must not run
// as root here. podlane runs git as the build container's user, whose checkout it
// is.
const gitconfig = `[filter "lfs"]
	clean = git-lfs clean -- %f
	smudge = git-lfs smudge -- %f
	process = git-lfs filter-process
	required = true
`

// system are the files that no package brings.
func system() []image.Entry {
	open := fs.ModeSticky | 0o777
	return []image.Entry{
		image.Symlink("bin", "usr/bin"), image.Symlink("sbin", "usr/sbin"), image.Symlink("lib", "usr/lib"), image.Symlink("lib64", "usr/lib64"),
		image.Dir("usr/sbin", 0o755), image.Dir("usr/lib64", 0o755), image.Dir("root", 0o700), image.Dir("home", 0o755),
		image.Dir("tmp", open), image.Dir("var/tmp", open), image.Dir(strings.TrimPrefix(Home, "/"), open),
		image.Text("etc/passwd", 0o644, "root:x:0:0:root:"+Home+":/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
		image.Text("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
		image.Text("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n"),
		image.Text("etc/gitconfig", 0o644, gitconfig),
		// Scanners for known weaknesses look here and in var/lib/dpkg/status.d.
		image.Text("etc/os-release", 0o644, "ID=debian\nNAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"podlane helper, of Debian "+suiteVersion+
			"\"\nVERSION_CODENAME="+Suite+"\nVERSION_ID=\""+suiteVersion+"\"\n"),
	}
}

// compose makes the image's files out of those of its packages.
func compose(packages [][]image.Entry) []image.Entry {
	all := map[string]image.Entry{}
	for _, entries := range append(packages, system()) {
		for _, e := range entries {
			all[e.Name] = e
		}
	}
	for _, name := range applets {
		if _, there := all["usr/bin/"+name]; !there {
			all["usr/bin/"+name] = image.Symlink("usr/bin/"+name, "busybox")
		}
	}
	var out []image.Entry
	var certificates []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(name, "usr/share/ca-certificates/") && strings.HasSuffix(name, ".crt") {
			certificates = append(certificates, string(all[name].Content))
			continue
		}
		if !isUnused(name) {
			out = append(out, all[name])
		}
	}
	// The package's script would do this.
	out = append(out, image.Text("etc/ssl/certs/ca-certificates.crt", 0o644, strings.Join(certificates, "")))
	return withoutEmptyDirs(withoutTwins(out))
}

// twinSize is from where on a second copy of a file becomes a link: git brings
// some of its programs twice.
const twinSize = 64 << 10

func withoutTwins(entries []image.Entry) []image.Entry {
	first := map[string]string{}
	for i, e := range entries {
		if len(e.Content) < twinSize {
			continue
		}
		if twin, there := first[string(e.Content)]; there {
			entries[i] = image.Symlink(e.Name, "/"+twin)
		} else {
			first[string(e.Content)] = e.Name
		}
	}
	return entries
}

// checkLibraries finds programs that could not start: what they link is in a
// package that we do without.
func checkLibraries(entries []image.Entry) error {
	there := map[string]bool{}
	for _, e := range entries {
		there[path.Base(e.Name)] = true
	}
	var missing []error
	for _, e := range entries {
		program, err := elf.NewFile(bytes.NewReader(e.Content))
		if err != nil {
			continue // a script or a text
		}
		needs, err := program.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		for _, library := range needs {
			if !there[library] {
				missing = append(missing, fmt.Errorf("%s needs %s, which is not in the image", e.Name, library))
			}
		}
	}
	return errors.Join(missing...)
}

// isUnused tells what the image does without. Of the documentation, licences
// stay.
func isUnused(name string) bool {
	if strings.HasPrefix(name, "usr/share/doc/") {
		return path.Base(name) != "copyright"
	}
	for _, u := range unused {
		if prefix, below := strings.CutSuffix(u, "/*"); below {
			for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
				if ok, _ := path.Match(prefix, dir); ok {
					// What describes packages is ours.
					return !strings.HasPrefix(name, statusDir)
				}
			}
		} else if ok, _ := path.Match(u, name); ok {
			return true
		}
	}
	return false
}

// withoutEmptyDirs drops folders that only packages' unused files were in, and
// adds those that files need.
func withoutEmptyDirs(entries []image.Entry) []image.Entry {
	dirs := map[string]image.Entry{}
	for _, e := range entries {
		if e.Mode.IsDir() {
			dirs[e.Name] = e
		}
	}
	kept := map[string]bool{}
	var out []image.Entry
	var keep func(name string)
	keep = func(name string) {
		if name == "." || kept[name] {
			return
		}
		kept[name] = true
		keep(path.Dir(name))
		if e, known := dirs[name]; known {
			out = append(out, e)
		} else {
			out = append(out, image.Dir(name, 0o755))
		}
	}
	for _, e := range entries {
		if !e.Mode.IsDir() {
			keep(path.Dir(e.Name))
			out = append(out, e)
		}
	}
	for _, e := range system() {
		if e.Mode.IsDir() {
			keep(e.Name)
		}
	}
	return out
}
