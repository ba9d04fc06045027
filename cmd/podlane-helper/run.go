package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"podlane/internal/version"
	"podlane/podagent"
)

const usage = `podlane-helper works inside a job's pod; podlane calls it.

  podlane-helper init [--role build|helper] [--install DIR] [--idle DURATION]
      Process 1 of a container. Ends on SIGTERM when no stage runs (exit 0), or
      when no stage has talked to the pod for the idle time (exit 1).
  podlane-helper install DIR
      Copies itself into a folder.
  podlane-helper run
      One session for one stage. Reads a header line, the script and control
      lines from stdin; writes the script's output to stdout and events as JSON
      lines to stderr. The exit code says nothing about the script: the exit
      event does.
  podlane-helper supervise [--grace SECONDS] [--as-build-user] DIR
      Started by run: runs the script in DIR and leaves an exit record there.
  podlane-helper ready [--service NAME=PORT[,PORT]]... [--timeout DURATION]
      Waits until the pod and its services answer; JSON lines on stdout. Exits
      with 1 if they don't in time.
  podlane-helper version

Called as gitlab-runner it answers to the commands that the runner's scripts
use for artifacts.
`

// program is what all commands share.
type program struct {
	path           string
	environ        []string
	layout         podagent.Layout
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run is the whole program: it returns the exit code.
func run(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	p := &program{path: "/proc/self/exe", environ: environ, layout: podagent.DefaultLayout(), stdin: stdin, stdout: stdout, stderr: stderr}
	if path, err := os.Executable(); err == nil {
		p.path = path
	}
	// Tests have no /podlane.
	if root := p.getenv("PODLANE_HELPER_ROOT"); root != "" {
		p.layout.Shared, p.layout.State = filepath.Join(root, "shared"), filepath.Join(root, "state")
	}
	if name := filepath.Base(args[0]); strings.HasPrefix(name, "gitlab-runner") {
		return p.gitlabRunner(args[1:])
	}
	if len(args) < 2 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	command, ok := map[string]func([]string) error{
		"init": p.init, "install": p.install, "run": p.session, "supervise": p.supervise, "ready": p.ready, "version": p.version,
	}[args[1]]
	if !ok {
		fmt.Fprint(stderr, usage)
		if args[1] == "--help" || args[1] == "help" {
			return 0
		}
		return 2
	}
	switch err := command(args[2:]); {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, usage)
		return 0
	default:
		fmt.Fprintf(stderr, "podlane-helper: error: %v\n", err)
		return 1
	}
}

func (p *program) getenv(key string) string {
	for i := len(p.environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(p.environ[i], key+"="); ok {
			return value
		}
	}
	return ""
}

func flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

func (p *program) init(args []string) error {
	f := flags("init")
	role := f.String("role", podagent.RoleBuild, "")
	install := f.String("install", "", "")
	idle := f.Duration("idle", 15*time.Minute, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	// It sleeps for the whole job: a small heap matters, speed does not.
	debug.SetGCPercent(20)
	i := &podagent.Init{Layout: p.layout, Role: *role, Program: p.path, Path: p.getenv("PATH"), Install: *install, Idle: *idle}
	return i.Run(context.Background())
}

func (p *program) install(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("got %d arguments, expected a folder", len(args))
	}
	return podagent.Install(p.path, args[0])
}

func (p *program) session(args []string) error {
	if err := flags("run").Parse(args); err != nil {
		return err
	}
	server := &podagent.Server{Layout: p.layout, Program: p.path}
	server.Serve(context.Background(), p.stdin, p.stdout, p.stderr)
	return nil
}

func (p *program) supervise(args []string) error {
	f := flags("supervise")
	grace := f.Int("grace", 0, "")
	asBuildUser := f.Bool("as-build-user", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return fmt.Errorf("got %d arguments, expected a stage's folder", f.NArg())
	}
	s := &podagent.Supervisor{
		Layout:      p.layout,
		Dir:         f.Arg(0),
		Grace:       time.Duration(*grace) * time.Second,
		AsBuildUser: *asBuildUser,
		Environ:     p.environ,
		// The session's end of a pipe: see podagent.Server.
		Ready: os.NewFile(3, "ready"),
	}
	return s.Run()
}

func (p *program) ready(args []string) error {
	f := flags("ready")
	timeout := f.Duration("timeout", 30*time.Second, "")
	var services []podagent.ServicePorts
	f.Func("service", "", func(s string) error {
		service, err := podagent.ParseServicePorts(s)
		services = append(services, service)
		return err
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	return podagent.Ready(context.Background(), p.layout, services, *timeout, p.stdout)
}

func (p *program) version([]string) error {
	_, err := fmt.Fprintln(p.stdout, version.String())
	return err
}
