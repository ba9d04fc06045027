package shell

import (
	"fmt"
	"path"
	"strings"

	"podlane/test/runnersim/spec"
)

// Colours of the runner's own lines (gitlab-runner helpers/ansi_colors.go).
const (
	boldGreen = "\033[32;1m"
	yellow    = "\033[0;33m"
	reset     = "\033[0;m"
)

// onTerm makes a shell that gets SIGTERM end with 1 instead of dying of the
// signal and printing its script (gitlab-runner shells/bash.go,
// bashExitOnScriptTerminationSignal).
const onTerm = "trap 'exit 1' TERM"

// writer collects the lines of a bash or sh script.
type writer struct {
	body   strings.Builder
	tmpDir string
	depth  int
}

func (w *writer) line(text string) {
	for range w.depth {
		w.body.WriteString("  ")
	}
	w.body.WriteString(text)
	w.body.WriteByte('\n')
}

func (w *writer) linef(format string, args ...any) { w.line(fmt.Sprintf(format, args...)) }

func words(quote func(string) string, command string, args []string) string {
	out := []string{Quote(command)}
	for _, a := range args {
		out = append(out, quote(a))
	}
	return strings.Join(out, " ")
}

// command runs a program with exactly these arguments.
func (w *writer) command(name string, args ...string) { w.line(words(Quote, name, args)) }

// commandExpand runs a program whose arguments may name shell variables.
func (w *writer) commandExpand(name string, args ...string) {
	w.line(words(expandable, name, args))
}

// ifCommand opens a block for when a program succeeds, without its output.
func (w *writer) ifCommand(name string, args ...string) {
	w.open("if " + words(Quote, name, args) + " >/dev/null 2>&1 ; then")
}

// ifOutput is like ifCommand, but the program's output shows.
func (w *writer) ifOutput(quote func(string) string, name string, args ...string) {
	w.open("if " + words(quote, name, args) + " ; then")
}

// ifPath opens a block on a file test such as -d.
func (w *writer) ifPath(test, name string) { w.open(fmt.Sprintf("if [ %s %q ]; then", test, name)) }

func (w *writer) open(line string) {
	w.line(line)
	w.depth++
}

func (w *writer) orElse() {
	w.depth--
	w.line("else")
	w.depth++
}

func (w *writer) end() {
	w.depth--
	w.line("fi")
}

func (w *writer) notice(format string, args ...any)  { w.echo(boldGreen, format, args) }
func (w *writer) warning(format string, args ...any) { w.echo(yellow, format, args) }

func (w *writer) echo(colour, format string, args []any) {
	w.line("echo " + Quote(colour+fmt.Sprintf(format, args...)+reset))
}

func (w *writer) cd(dir string)    { w.command("cd", dir) }
func (w *writer) mkdir(dir string) { w.command("mkdir", "-p", dir) }

func (w *writer) removeFile(name string) { w.commandExpand("rm", "-f", name) }

func (w *writer) removeDir(dir string) {
	w.ifPath("-d", dir)
	w.commandExpand("chmod", "-R", "u+rwX", dir)
	w.end()
	w.commandExpand("rm", "-r", "-f", dir)
}

// findPlus picks the terminator of find -exec that this system knows.
const findPlus = `et='+' ; find /dev/null -exec true {} + 2>/dev/null || et=';' ; `

func (w *writer) removeFilesBelow(dir, name string) {
	w.ifPath("-d", dir)
	w.linef(findPlus+`find %q -name %q -type f -exec rm -f {} "${et}"`, dir, name)
	w.end()
}

func (w *writer) removeDirsBelow(dir, name string) {
	w.ifPath("-d", dir)
	w.linef(findPlus+`find %q -name %q -type d -depth -exec rm -rf -- {} "${et}"`, dir, name)
	w.end()
}

// tmpFile is a file in the job's folder of temporary files.
func (w *writer) tmpFile(name string) string { return absolute(path.Join(w.tmpDir, name)) }

func absolute(name string) string {
	if path.IsAbs(name) || strings.HasPrefix(name, "$PWD") {
		return name
	}
	return path.Join("$PWD", name)
}

// variable exports v, or the path of the file it is written to first.
func (w *writer) variable(v spec.Variable) {
	if v.File {
		file := w.tmpFile(v.Key)
		w.linef("mkdir -p %q", w.tmpDir)
		w.linef("printf '%%s' %s > %q", Quote(v.Value), file)
		w.linef("export %s=%q", Quote(v.Key), file)
		return
	}
	if strings.HasPrefix(v.Value, w.tmpDir) {
		v.Value = absolute(v.Value)
	}
	w.linef("export %s=%s", Quote(v.Key), Quote(v.Value))
}

// finish wraps the collected lines into the whole script.
func (w *writer) finish(shell string, xtrace bool) string {
	var b strings.Builder
	b.WriteString("#!/usr/bin/env " + shell + "\n\n")
	b.WriteString(onTerm + "\n\n")
	if xtrace {
		b.WriteString("set -o xtrace\n")
	}
	b.WriteString(`case "$(set -o)" in *"pipefail"*) set -o pipefail;; esac; set -o errexit` + "\n")
	b.WriteString("set +o noclobber\n")
	b.WriteString("(" + onTerm + "; eval " + Quote(w.body.String()) + ") < /dev/null\n")
	b.WriteString("exit 0\n")
	return b.String()
}
