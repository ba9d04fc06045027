package podagent

import "path/filepath"

// Layout says where things are inside the pod. Tests have one of their own.
type Layout struct {
	// Shared is seen by every container of ours.
	Shared string
	// State is each container's own.
	State string
	// Shells are the folders that are searched for a shell after PATH.
	Shells []string
}

// DefaultLayout is the layout of a job's pod.
func DefaultLayout() Layout {
	return Layout{Shared: "/podlane/shared", State: "/podlane/state", Shells: []string{"/bin", "/usr/bin", "/usr/local/bin", "/busybox"}}
}

// alive is touched by every session: both containers end when it grows old.
func (l Layout) alive() string { return filepath.Join(l.Shared, "alive") }

// buildUser holds the build container's "uid:gid".
func (l Layout) buildUser() string { return filepath.Join(l.Shared, "build-user") }

// helperReady is there once the helper container works.
func (l Layout) helperReady() string { return filepath.Join(l.Shared, "helper-ready") }

func (l Layout) stage(id string) stageDir { return stageDir(filepath.Join(l.State, "stages", id)) }

// stageDir is one stage's folder.
type stageDir string

func (d stageDir) file(name string) string { return filepath.Join(string(d), name) }

// script is removed when the script has ended: it holds secrets.
func (d stageDir) script() string { return d.file("script") }

// log is the stage's output.
func (d stageDir) log() string { return d.file("log") }

// exit is the exit record; it appears whole.
func (d stageDir) exit() string { return d.file("exit") }

// failed says in a word and a line why there will be no exit record.
func (d stageDir) failed() string { return d.file("failed") }

// starting is locked by the session that spools and starts the stage.
func (d stageDir) starting() string { return d.file("starting") }

// supervised is locked by the supervisor for as long as it lives, and holds
// its process id.
func (d stageDir) supervised() string { return d.file("supervised") }
