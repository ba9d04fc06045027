package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"podlane/podagent"
)

// cacheStateFile lies in the attempt's folder on the runner's host, which the
// runner makes for an attempt and takes away after it.
const cacheStateFile = "podlane-caches.json"

// cacheState is what restore_cache leaves for archive_cache. It holds nothing
// secret. Without it caches are saved that need not be, and lockfiles are read
// again; nothing worse.
type cacheState struct {
	// Lockfiles are the files that each LOCKFILES_ variable stood for before
	// the script ran: an install that rewrites its lockfile must not save
	// under another key than the one that was looked for.
	Lockfiles map[string][]podagent.LockfileSum `json:"lockfiles,omitempty"`
	// Restored are caches by their objects' names.
	Restored map[string]restoredCache `json:"restored,omitempty"`
	// Damaged are versions of objects that are no whole archives, by the
	// objects' names: the job's own entry may take their place, also under a
	// key that is written once.
	Damaged map[string]string `json:"damaged,omitempty"`
}

// restoredCache is an entry as it was restored.
type restoredCache struct {
	// Number is the cache's in the job.
	Number int `json:"number"`
	// Fingerprint is the tree's.
	Fingerprint string `json:"fingerprint"`
	// Modified is when the entry had last been written.
	Modified time.Time `json:"modified"`
}

func (s *Stage) loadCacheState() (cacheState, error) {
	var state cacheState
	if s.StateDir == "" {
		return state, nil
	}
	data, err := os.ReadFile(filepath.Join(s.StateDir, cacheStateFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return state, nil
	case err != nil:
		return state, fmt.Errorf("read what was restored: %w", err)
	}
	if err := json.Unmarshal(data, &state); err != nil {
		return cacheState{}, fmt.Errorf("read what was restored: %s: %w", cacheStateFile, err)
	}
	return state, nil
}

func (s *Stage) storeCacheState(state cacheState) error {
	if s.StateDir == "" {
		return nil
	}
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	file := filepath.Join(s.StateDir, cacheStateFile)
	if err = os.WriteFile(file+".new", data, 0o600); err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("note what was restored: %w", err)
	}
	return nil
}
