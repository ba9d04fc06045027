package vaultserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"podlane/test/stack/stackenv"
)

// startLimit is for Vault to answer: 0.2 s on an idle machine.
const startLimit = 90 * time.Second

// Server is a Vault that one test may seal, stop, and start again. Its data
// outlives its process.
type Server struct {
	// Client is the administrator's.
	Client
	Secrets
	// AuditLog has a JSON line for every request and every answer.
	AuditLog string

	program string
	dir     string
	port    stackenv.Port
	process *exec.Cmd
	exited  chan struct{}
}

// New starts an empty Vault that works, beside the stack's. Dir gets its data,
// its log and its secrets. Close ends it.
func New(ctx context.Context, stack stackenv.Stack, dir string) (*Server, error) {
	port, err := stack.SparePort()
	if err != nil {
		return nil, err
	}
	s := &Server{
		Secrets: Secrets{
			UnsealKeyFile: filepath.Join(dir, "unseal.key"),
			RootTokenFile: filepath.Join(dir, "root.token"),
		},
		AuditLog: filepath.Join(dir, "audit.log"),
		program:  stack.VaultProgram, dir: dir, port: port,
	}
	s.Address = "http://" + port.Address
	err = s.Start(ctx)
	if err == nil {
		s.Client, err = s.Secrets.Client(s.Address)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Start starts Vault again after Stop, at the same address, and unseals it.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := s.start(); err != nil {
		return fmt.Errorf("start Vault: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.Prepare(ctx, s.Address, s.AuditLog)
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			log, _ := os.ReadFile(s.log())
			return fmt.Errorf("start Vault: it has ended:\n%s", log)
		case <-ctx.Done():
			return fmt.Errorf("start Vault: not there after %s: %w", startLimit, err)
		case <-tick.C:
		}
	}
}

func (s *Server) log() string { return filepath.Join(s.dir, "vault.log") }

func (s *Server) start() error {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	//nolint:noctx // it ends with Stop: a test's context ends before its clean-up
	cmd := exec.Command(s.program, "-listen", s.port.Address, "-data", filepath.Join(s.dir, "data"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.process, s.exited = cmd, exited
	return nil
}

// Stop kills Vault: its address refuses connections until Start.
func (s *Server) Stop() error {
	if s.process == nil {
		return nil
	}
	err := s.process.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-s.exited
	s.process = nil
	return err
}

// Unseal undoes Seal.
func (s *Server) Unseal(ctx context.Context) error {
	return s.Prepare(ctx, s.Address, s.AuditLog)
}

// Close ends Vault. Its folder is its owner's to remove.
func (s *Server) Close() error { return errors.Join(s.Stop(), s.port.Release()) }
