package main

import (
	"path/filepath"

	"podlane/executor"
	"podlane/executor/settings"
	"podlane/internal/trace"
)

// observer sends what stages tell to where settings and environment say.
func (a *app) observer(s *settings.Settings) executor.Observer {
	exporter, err := trace.NewExporter(s.Observe.TraceEndpoint, s.Observe.TraceTimeout.D(), a.env.otlp)
	return executor.Observer{Dir: filepath.Dir(a.env.jobResponseFile), Trace: exporter, NoTrace: err, Stderr: a.stderr}
}
