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
	"syscall"
	"time"

	"podlane/internal/version"
	"podlane/podagent"
)

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
		p.layout.Shared, p.layout.State, p.layout.Grants = filepath.Join(root, "shared"), filepath.Join(root, "state"), filepath.Join(root, "grants")
	}
	if name := filepath.Base(args[0]); strings.HasPrefix(name, "gitlab-runner") {
		return p.gitlabRunner(args[1:])
	}
	if len(args) < 2 {
		fmt.Fprint(stderr, overview())
		return exitUsage
	}
	if args[1] == "help" || args[1] == "--help" || args[1] == "-h" {
		fmt.Fprint(stdout, overview())
		return 0
	}
	command, ok := find(args[1])
	if !ok {
		fmt.Fprintf(stderr, "podlane-helper: error: no command %q\n\n%s", args[1], overview())
		return exitUsage
	}
	var wrong *usageError
	switch err := command.run(p, args[2:]); {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, command.help())
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "podlane-helper %s: error: %v\n\n%s", command.name, err, command.help())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "podlane-helper %s: error: %v\n", command.name, err)
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

// usageError is the caller's mistake.
type usageError struct{ error }

func flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse expects as many arguments after the flags as operands says.
func parse(f *flag.FlagSet, args []string, operands int) error {
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return &usageError{err}
	case f.NArg() != operands:
		return &usageError{fmt.Errorf("got %d arguments, expected %d", f.NArg(), operands)}
	}
	return nil
}

func (p *program) init(args []string) error {
	f := flags("init")
	role := f.String("role", podagent.RoleBuild, "")
	install := f.String("install", "", "")
	idle := f.Duration("idle", 15*time.Minute, "")
	keepEnv := f.Bool("keep-env", false, "")
	if err := parse(f, args, 0); err != nil {
		return err
	}
	if *role != podagent.RoleBuild && *role != podagent.RoleHelper {
		return &usageError{fmt.Errorf("role %q: expected %s or %s", *role, podagent.RoleBuild, podagent.RoleHelper)}
	}
	// It sleeps for the whole job: a small heap matters, speed does not.
	debug.SetGCPercent(20)
	podagent.HoldThreads()
	i := &podagent.Init{Layout: p.layout, Role: *role, Program: p.path, Path: p.getenv("PATH"), Install: *install, Idle: *idle}
	if *keepEnv {
		i.KeepEnv = p.environ
	}
	return i.Run(context.Background())
}

func (p *program) install(args []string) error {
	f := flags("install")
	if err := parse(f, args, 1); err != nil {
		return err
	}
	return podagent.Install(p.path, f.Arg(0))
}

func (p *program) session(args []string) error {
	if err := parse(flags("run"), args, 0); err != nil {
		return err
	}
	podagent.HoldThreads()
	server := &podagent.Server{Layout: p.layout, Program: p.path}
	server.Serve(context.Background(), p.stdin, p.stdout, p.stderr)
	return nil
}

func (p *program) supervise(args []string) error {
	f := flags("supervise")
	grace := f.Int("grace", 0, "")
	asBuildUser := f.Bool("as-build-user", false, "")
	if err := parse(f, args, 1); err != nil {
		return err
	}
	podagent.HoldThreads()
	s := &podagent.Supervisor{
		Layout:      p.layout,
		Dir:         f.Arg(0),
		Grace:       time.Duration(*grace) * time.Second,
		AsBuildUser: *asBuildUser,
		Environ:     p.environ,
		// From the session: see podagent.Server.
		Ready:    inherited(3, "ready"),
		Starting: inherited(4, "starting"),
	}
	return s.Run()
}

// inherited is a file that a parent has passed on. The script must not get it.
func inherited(fd int, name string) *os.File {
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
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
	if err := parse(f, args, 0); err != nil {
		return err
	}
	return podagent.Ready(context.Background(), p.layout, services, *timeout, p.stdout)
}

func (p *program) grant(args []string) error {
	if err := parse(flags("grant"), args, 0); err != nil {
		return err
	}
	return podagent.ReceiveGrants(p.layout, p.stdin)
}

func (p *program) awsCredentials(args []string) error {
	f := flags("aws-credentials")
	if err := parse(f, args, 1); err != nil {
		return err
	}
	return podagent.PrintAWSCredentials(p.layout, f.Arg(0), p.stdout)
}

func (p *program) runnerCheck(args []string) error {
	if err := parse(flags("gitlab-runner-check"), args, 0); err != nil {
		return err
	}
	target, err := podagent.ProvideRunner(p.layout, p.path, p.getenv("PATH"))
	if err == nil {
		_, err = fmt.Fprintln(p.stdout, target)
	}
	return err
}

func (p *program) version(args []string) error {
	if err := parse(flags("version"), args, 0); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.stdout, version.String())
	return err
}
