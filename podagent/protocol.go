package podagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Version is the protocol's version. Both ends must have the same: a helper
// image and a podlane binary are released together.
const Version = 1

// Magic opens the header line of a stage session.
const Magic = "PODLANE/1"

// Intervals and limits that both ends rely on.
const (
	// AliveInterval is how often the server writes an alive event and how
	// often the client writes a ping.
	AliveInterval = 10 * time.Second
	// SilenceLimit is how long either end waits for any byte from the other
	// before it takes the stream for dead: three intervals.
	SilenceLimit = 3 * AliveInterval
	// MaxHeaderBytes bounds the header line.
	MaxHeaderBytes = 64 << 10
	// MaxScriptBytes bounds a script. GitLab's own scripts are 5 to 10 kB
	// plus the job's variables.
	MaxScriptBytes = 256 << 20
)

// Header opens a stage session: the client writes it as one line, Magic, a
// space, JSON and a newline, followed by ScriptBytes bytes of script.
//
// A client that reconnects sends header and script again: the server does not
// start a stage a second time that it has already started.
type Header struct {
	// Stage identifies one run of one stage, for instance
	// "build_script-1f00c0ffee42". Letters, digits, '_', '-' and '.' only,
	// at most 128. The same id is started once and only once.
	Stage string `json:"stage"`
	// Offset is the position in the stage's output from which the client
	// wants to read: the number of bytes it has safely received.
	Offset int64 `json:"offset"`
	// ScriptBytes is the length of the script that follows the header line.
	ScriptBytes int64 `json:"script_bytes"`
	// GraceSeconds is the time between SIGTERM and SIGKILL when the stage is
	// cancelled.
	GraceSeconds int `json:"grace_seconds"`
	// AsBuildUser makes a helper that runs as root start the script with the
	// user and group of the build container, so that what git checks out
	// belongs to whoever will work with it.
	AsBuildUser bool `json:"as_build_user,omitempty"`
	// Cache is what has become of the job's caches so far, for whoever looks on.
	Cache string `json:"cache,omitempty"`
}

// Control lines follow the script on the client's half of the stream, one a
// line. An end of the stream means that the client has gone: the server stops
// following, the stage goes on.
const (
	// ControlPing says that the client is alive.
	ControlPing = "ping"
	// ControlCancel asks for the end of the stage: SIGTERM to its process
	// group, SIGKILL after the grace period. The exit event follows.
	ControlCancel = "cancel"
)

// Events go the other way, as JSON lines on stderr; stdout carries the
// stage's output and nothing else.
const (
	// EventStarted is the first event: the stage runs, or ran already.
	EventStarted = "started"
	// EventAlive comes every AliveInterval.
	EventAlive = "alive"
	// EventExit is the last event: the stage's exit record. All output up to
	// OutputBytes has been written to stdout before it.
	EventExit = "exit"
	// EventError is a last event too: the session failed. Reason says why.
	EventError = "error"
)

// Event is one line from server to client.
type Event struct {
	Event string `json:"event"`
	// Attached is set in EventStarted if an earlier session started the stage.
	Attached bool `json:"attached,omitempty"`
	// Exit is set in EventExit.
	Exit *ExitRecord `json:"exit,omitempty"`
	// Reason is set in EventError: one line for people.
	Reason string `json:"reason,omitempty"`
	// Code is set in EventError: which kind of error it is.
	Code ErrorCode `json:"code,omitempty"`
}

// ErrorCode tells apart the errors that the client treats differently.
type ErrorCode string

const (
	// CodeNoShell means that the image has neither bash nor sh.
	CodeNoShell ErrorCode = "no-shell"
	// CodeLost means that the stage was started but its supervisor is gone
	// without an exit record: it was killed.
	CodeLost ErrorCode = "lost"
	// CodeProtocol means that the two ends do not understand each other.
	CodeProtocol ErrorCode = "protocol"
	// CodeInternal is everything else: a full disk, say.
	CodeInternal ErrorCode = "internal"
)

// ExitRecord is what a supervisor leaves behind when its script has ended. A
// stage has succeeded if and only if there is a record with Code 0 and no
// Signal.
type ExitRecord struct {
	// Code is the script's exit code, 128+n if signal n ended it.
	Code int `json:"code"`
	// Signal is the name of the signal that ended the script, if one did.
	Signal string `json:"signal,omitempty"`
	// Cancelled is set if the end was asked for by ControlCancel.
	Cancelled bool `json:"cancelled,omitempty"`
	// OutputBytes is the length of the output that belongs to the stage.
	OutputBytes int64 `json:"output_bytes"`
	// OutOfMemory is how many processes of the container the kernel has killed
	// while the script ran because memory ran out.
	OutOfMemory int `json:"out_of_memory,omitempty"`
	// MemoryLimit and MemoryPeak are set if OutOfMemory is.
	MemoryLimit Bytes `json:"memory_limit,omitempty"`
	MemoryPeak  Bytes `json:"memory_peak,omitempty"`
	// OutOfProcesses is set if the container could start no process any more when
	// the script failed. What the script had left running was ended then.
	OutOfProcesses bool `json:"out_of_processes,omitempty"`
	// Started and Ended are the script's own times.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
}

// EncodeHeader returns the header line with its newline.
func EncodeHeader(h Header) ([]byte, error) {
	if err := h.validate(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode stage header: %w", err)
	}
	return fmt.Appendf(nil, "%s %s\n", Magic, b), nil
}

// DecodeHeader parses a header line, with or without its newline.
func DecodeHeader(line string) (Header, error) {
	var h Header
	magic, body, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	if !ok || magic != Magic {
		return h, fmt.Errorf("stage header starts with %q, expected %q: podlane and podlane-helper are of different versions", truncate(magic, 20), Magic)
	}
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		return h, fmt.Errorf("decode stage header: %w", err)
	}
	return h, h.validate()
}

func (h Header) validate() error {
	switch {
	case !validStage(h.Stage):
		return fmt.Errorf("stage id %q is not one: expected 1 to 128 letters, digits, '_', '-' or '.'", truncate(h.Stage, 140))
	case h.Offset < 0:
		return errors.New("stage header has a negative offset")
	case h.ScriptBytes < 0 || h.ScriptBytes > MaxScriptBytes:
		return fmt.Errorf("script of %d bytes: at most %d are possible", h.ScriptBytes, int64(MaxScriptBytes))
	case h.GraceSeconds < 0:
		return errors.New("stage header has a negative grace period")
	}
	return nil
}

func validStage(id string) bool {
	if id == "" || len(id) > 128 || strings.Trim(id, ".") == "" {
		return false
	}
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-', r == '.':
		default:
			return false
		}
	}
	return true
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
