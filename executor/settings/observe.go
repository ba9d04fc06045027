package settings

import (
	"net/url"
	"path"
	"time"
)

// Observe says what podlane tells about itself to whoever runs it.
type Observe struct {
	// Log gets a JSON line at the end of each stage: a file, or "stderr" for
	// all of a job's lines at once on the stderr of cleanup, which the runner
	// shows in its own log. Empty means nobody.
	Log string `toml:"log"`
	// TraceEndpoint is the URL of an OpenTelemetry collector for OTLP over HTTP,
	// with /v1/traces; empty means the one of the environment, if that has one.
	TraceEndpoint string `toml:"trace_endpoint"`
	// TraceTimeout bounds what sending spans may cost a stage. A job whose
	// collector has not answered once does not ask it again.
	TraceTimeout Duration `toml:"trace_timeout"`
}

// ObserveStderr is the value of Log for cleanup's stderr.
const ObserveStderr = "stderr"

func defaultObserve() Observe {
	return Observe{TraceTimeout: Duration(500 * time.Millisecond)}
}

// check reports what can't be meant, by way of must.
func (o Observe) check(must func(ok bool, key, found, expected string)) {
	must(o.Log == "" || o.Log == ObserveStderr || path.IsAbs(o.Log), "observe.log", o.Log, `an absolute path, or "stderr"`)
	u, err := url.Parse(o.TraceEndpoint)
	must(o.TraceEndpoint == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil,
		"observe.trace_endpoint", o.TraceEndpoint, `a URL such as "http://collector:4318/v1/traces"`)
	must(o.TraceTimeout.D() >= 10*time.Millisecond && o.TraceTimeout.D() <= 10*time.Second, "observe.trace_timeout", o.TraceTimeout.String(), "a duration from 10ms to 10s")
}
