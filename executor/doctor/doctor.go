// Package doctor finds out what keeps jobs from running, before one tries: it
// does what the stages do to get access, and looks at whether that gives too
// little or too much. It leaves nothing behind.
package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"podlane/executor"
	"podlane/executor/settings"
	"podlane/internal/joblog"
	"podlane/internal/redact"
)

// Status is how a check ended.
type Status string

// The states. Only Failed keeps jobs from running.
const (
	OK       Status = "ok"
	Warning  Status = "warning"
	Failed   Status = "failed"
	NotTried Status = "not_tried"
)

// Result is what one check found.
type Result struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	// Hint is what to do about it.
	Hint string `json:"hint,omitempty"`
}

// String is the result for people: a line, and one for the hint.
func (r Result) String() string {
	mark := map[Status]string{OK: "✓", Warning: "!", Failed: "✗", NotTried: "!"}[r.Status]
	found := r.Found
	if r.Status == NotTried {
		found = "not tried: " + found
	}
	text := fmt.Sprintf("%s %s: %s", mark, r.Name, joblog.OneLine(found))
	if r.Hint != "" {
		text += "\n  hint: " + joblog.OneLine(r.Hint)
	}
	return text
}

// Options say what to look at.
type Options struct {
	// ConfigFile is podlane.toml.
	ConfigFile string
	// IDToken, Instance, Secrets and Proxy are as in executor.TryoutOptions.
	IDToken  redact.Secret
	Instance string
	Secrets  *redact.Set
	Proxy    func(*http.Request) (*url.URL, error)
}

// Examine makes all checks, hands each result to say as soon as it is there, and
// tells whether none has failed.
func Examine(ctx context.Context, o Options, say func(Result)) bool {
	r := &round{say: say, missing: map[string]string{}}
	s, err := settings.Load(o.ConfigFile)
	if !readSettings(r, o.ConfigFile, &s, err) {
		return false
	}
	e := &examination{
		s: &s, token: o.IDToken,
		try: executor.NewTryout(executor.TryoutOptions{Settings: &s, IDToken: o.IDToken, Instance: o.Instance, Secrets: o.Secrets, Proxy: o.Proxy}),
	}
	for _, group := range [][]check{e.vault(), e.apiServer(), e.idToken(), e.roles(), e.cluster(), e.cache(), e.grants()} {
		for _, c := range group {
			r.do(ctx, c)
		}
	}
	// Also after an interruption.
	for _, c := range e.tidyUp() {
		r.do(context.WithoutCancel(ctx), c)
	}
	return !r.failed
}

// examination is what the checks share.
type examination struct {
	s     *settings.Settings
	token redact.Secret
	try   *executor.Tryout
	access
}

// check is one line of the report.
type check struct {
	name string
	// needs are the names of checks without whose success there is nothing to
	// try. Those that are not part of this round are not waited for.
	needs []string
	run   func(context.Context) finding
}

// finding is a Result without its name. An empty one is not worth a line.
type finding struct {
	status      Status
	found, hint string
}

// limit bounds one check.
const limit = 20 * time.Second

// round makes checks one after the other.
type round struct {
	say    func(Result)
	failed bool
	// missing has the reason why there is nothing to try for whoever needs a
	// check, by its name.
	missing map[string]string
}

func (r *round) do(ctx context.Context, c check) {
	f, reason := r.find(ctx, c)
	if f.status == Failed || f.status == NotTried {
		r.missing[c.name] = reason
	}
	r.failed = r.failed || f.status == Failed
	if f.found != "" {
		r.say(Result{Name: c.name, Status: f.status, Found: f.found, Hint: f.hint})
	}
}

// find also returns the reason that those hear who need the check.
func (r *round) find(ctx context.Context, c check) (finding, string) {
	for _, need := range c.needs {
		if reason := r.missing[need]; reason != "" {
			return finding{status: NotTried, found: reason}, reason
		}
	}
	if ctx.Err() != nil {
		return finding{status: NotTried, found: "interrupted"}, "interrupted"
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no end after %s", limit))
	defer cancel()
	f := c.run(ctx)
	if f.status == NotTried {
		return f, f.found
	}
	return f, c.name + " has failed"
}

func fine(format string, args ...any) finding {
	return finding{status: OK, found: fmt.Sprintf(format, args...)}
}

func warn(hint, format string, args ...any) finding {
	return finding{status: Warning, found: fmt.Sprintf(format, args...), hint: hint}
}

func fail(hint, format string, args ...any) finding {
	return finding{status: Failed, found: fmt.Sprintf(format, args...), hint: hint}
}

func notTried(hint, format string, args ...any) finding {
	return finding{status: NotTried, found: fmt.Sprintf(format, args...), hint: hint}
}

// clock is a moment for people.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 MST") }
