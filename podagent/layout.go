package podagent

import (
	"path/filepath"
	"strconv"
)

// Layout says where things are inside the pod. Tests have one of their own.
type Layout struct {
	// Shared is seen by every container of ours.
	Shared string
	// State is each container's own.
	State string
	// Grants is the build container's, in memory, if the job was granted
	// anything.
	Grants string
	// Shells are the folders that are searched for a shell after PATH.
	Shells []string
}

// DefaultLayout is the layout of a job's pod.
func DefaultLayout() Layout {
	return Layout{Shared: "/podlane/shared", State: "/podlane/state", Grants: "/podlane/grants", Shells: []string{"/bin", "/usr/bin", "/usr/local/bin", "/busybox"}}
}

// alive is touched by every session: both containers end when it grows old.
func (l Layout) alive() string { return filepath.Join(l.Shared, "alive") }

// buildUser holds the build container's "uid:gid".
func (l Layout) buildUser() string { return filepath.Join(l.Shared, "build-user") }

// helperReady is there once the helper container works.
func (l Layout) helperReady() string { return filepath.Join(l.Shared, "helper-ready") }

// home is for scripts of the helper container that run as the build user.
func (l Layout) home(uid int) string { return filepath.Join(l.Shared, "home-"+strconv.Itoa(uid)) }

// bin stands at the end of every script's PATH, if it is there.
func (l Layout) bin() string { return filepath.Join(l.State, "bin") }

// terminating is there once the container has been told to end.
func (l Layout) terminating() string { return filepath.Join(l.State, "terminating") }

func (l Layout) stage(id string) stageDir { return stageDir(filepath.Join(l.State, "stages", id)) }

// stageDir is one stage's folder.
type stageDir string

func (d stageDir) file(name string) string { return filepath.Join(string(d), name) }

const scriptName = "script"

// script is removed when the script has ended: it holds secrets.
func (d stageDir) script() string { return d.file(scriptName) }

// log is the stage's output.
func (d stageDir) log() string { return d.file("log") }

// exit is the exit record; it appears whole.
func (d stageDir) exit() string { return d.file("exit") }

// failed says in a word and a line why there will be no exit record.
func (d stageDir) failed() string { return d.file("failed") }

// cache is what Header.Cache says.
func (d stageDir) cache() string { return d.file("cache") }

// reserve keeps room for the record on a disk that the job fills.
func (d stageDir) reserve() string { return d.file("reserve") }

// starting is locked by whoever starts the stage: a session, then the
// supervisor until the stage has begun.
func (d stageDir) starting() string { return d.file("starting") }

// supervised is locked by the supervisor until it has left its record, and
// holds its process id. It is there, locked, if and only if the stage has been
// started.
func (d stageDir) supervised() string { return d.file("supervised") }

// followed is locked, together with others, by each session that follows.
func (d stageDir) followed() string { return d.file("followed") }

// cache is for cache sessions: what they must know after one was killed.
func (l Layout) cache() string { return filepath.Join(l.State, "cache") }

// cacheSession is locked by the process of a cache session.
func (l Layout) cacheSession() string { return filepath.Join(l.cache(), "session") }
