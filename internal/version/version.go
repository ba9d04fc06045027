// Package version knows what was built.
package version

import "runtime/debug"

// Version is set when a release is linked: -X podlane/internal/version.Version=v1.2.3.
var Version = ""

// String returns the release, or the commit a development build was made from.
func String() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
