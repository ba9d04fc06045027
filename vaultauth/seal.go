package vaultauth

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"podlane/internal/redact"
)

const (
	stateFile = "vault.sealed"
	// schema goes into what is authenticated: a file of another version of podlane
	// opens as little as a foreign one.
	schema = "podlane vault state 1\x00"
	// maxState is far more than a handful of tokens take, in bytes.
	maxState = 1 << 20
)

// NewKey makes a key for a [Store], as text that fits an environment variable.
func NewKey() redact.Secret {
	key := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key) // never fails
	return redact.New(base64.RawURLEncoding.EncodeToString(key))
}

// Store is a file that holds a job's Vault tokens, sealed with
// XChaCha20-Poly1305. It only saves logins: whatever is wrong with it, it counts
// as empty.
type Store struct {
	dir      string
	aead     cipher.AEAD
	identity []byte
	warn     func(format string, args ...any)
}

// NewStore says where the file is or will be: in dir, which should be the job's
// own. Identity names the job; a file that was sealed for another one does not
// open. Warn is told of files that are ignored; it may be nil.
func NewStore(dir string, key redact.Secret, identity string, warn func(format string, args ...any)) (*Store, error) {
	raw, err := base64.RawURLEncoding.DecodeString(key.Reveal())
	if err != nil || len(raw) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("the key of the sealed vault tokens is not %d bytes in base64", chacha20poly1305.KeySize)
	}
	aead, err := chacha20poly1305.NewX(raw)
	if err != nil {
		return nil, fmt.Errorf("set up the seal of the vault tokens: %w", err)
	}
	if warn == nil {
		warn = func(string, ...any) {}
	}
	return &Store{dir: dir, aead: aead, identity: []byte(schema + identity), warn: warn}, nil
}

func (s *Store) path() string { return filepath.Join(s.dir, stateFile) }

// Remove deletes the file, if there is one.
func (s *Store) Remove() error {
	if err := os.Remove(s.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the sealed vault tokens: %w", err)
	}
	return nil
}

// load returns what the file holds, or nothing.
func (s *Store) load() state {
	sealed, err := readOwn(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return state{}
	}
	var st state
	if err == nil {
		st, err = s.open(sealed)
	}
	if err != nil {
		s.warn("the sealed vault tokens in %s are not used: %v", s.path(), err)
		return state{}
	}
	return st
}

// open unseals and decodes.
func (s *Store) open(sealed []byte) (state, error) {
	n := s.aead.NonceSize()
	if len(sealed) < n+s.aead.Overhead() {
		return state{}, fmt.Errorf("%d bytes are too few", len(sealed))
	}
	plain, err := s.aead.Open(nil, sealed[:n], sealed[n:], s.identity)
	if err != nil {
		return state{}, errors.New("changed, cut short, or sealed for another job")
	}
	st, err := decodeState(plain)
	if err != nil {
		return state{}, errors.New("they do not hold what they should") // the error would quote it
	}
	return st, nil
}

// update replaces the state of one role. Of processes that do so at once, the
// last one wins: the others' tokens end by their TTL.
func (s *Store) update(role string, r roleState, now time.Time) {
	st := s.load()
	if st.Roles == nil {
		st.Roles = map[string]roleState{}
	}
	st.Roles[role] = r.prune(now)
	if err := s.write(st); err != nil {
		s.warn("the vault tokens are not kept for the next stage: %v", err)
	}
}

func (s *Store) write(st state) error {
	plain, err := st.encode()
	if err != nil {
		return err
	}
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	sealed := s.aead.Seal(nonce, nonce, plain, s.identity)
	// A new file under a name of its own (O_EXCL, 0600), then moved to its place:
	// readers see the old one or the new one. Not synced: after a crash of the
	// host there is no job to go on with.
	f, err := os.CreateTemp(s.dir, stateFile+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(sealed)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path())
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// readOwn reads a file only if nobody else can have written or read it.
func readOwn(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, syscall.ELOOP) {
			return nil, errors.New("a symbolic link")
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("not a plain file but %s", info.Mode().Type())
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("the mode is %s, expected -rw-------", info.Mode().Perm())
	case !ok || int(owner.Uid) != os.Geteuid():
		return nil, fmt.Errorf("the owner is user %d, expected %d", owner.Uid, os.Geteuid())
	case info.Size() > maxState:
		return nil, fmt.Errorf("%d bytes are too many", info.Size())
	}
	return io.ReadAll(io.LimitReader(f, maxState))
}
