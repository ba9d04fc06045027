package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every command line of podlane that a page shows is one that podlane takes.
func TestCommandsInDocs(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "*.toml", "deploy/*.yaml", "scripts/*-bootstrap"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandsIn(string(text)) {
			n++
			if err := understood(line); err != nil {
				t.Errorf("%s: podlane %s: %v", filepath.Base(file), line, err)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d commands were found: the test proves nothing", n)
	}
}

var (
	blockCommand = regexp.MustCompile(`(?m)^(?: {4,}|\t)(?:\S+/)?podlane ([a-z].*)$`)
	spanCommand  = regexp.MustCompile("`podlane\\s+([a-z][^`]*)`")
	afterCommand = regexp.MustCompile(`\s+#.*|\s*[|>;&].*`)
)

// commandsIn finds what follows podlane in blocks and spans of code.
func commandsIn(text string) []string {
	var found []string
	for _, pattern := range []*regexp.Regexp{blockCommand, spanCommand} {
		for _, m := range pattern.FindAllStringSubmatch(text, -1) {
			found = append(found, strings.Join(strings.Fields(afterCommand.ReplaceAllString(m[1], "")), " "))
		}
	}
	return found
}

// understood tells whether podlane has the command and its flags, and takes
// that many arguments. Pages may name a command alone.
func understood(line string) error {
	root := (&app{stdout: io.Discard, stderr: io.Discard}).command(nil)
	args := strings.Fields(line)
	if slices.Contains(args, "…") || slices.Contains(args, "...") {
		args = args[:1]
	}
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if len(rest) == 0 && cmd != root {
		return nil
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
