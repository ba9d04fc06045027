package artifacts

import (
	"os"
	"strings"
)

// expand replaces $NAME, ${NAME} and ${NAME:-default} in a name or path. GitLab
// expands most variables before the job starts; those that a job sets by
// itself, in a dotenv report say, are left for the runner's program
// (artifacts_uploader.go normalizeArgs). A backslash keeps a dollar.
func expand(s string, getenv func(string) string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	const kept = "\x00" // cannot be part of a path
	s = strings.ReplaceAll(s, `\$`, kept)
	s = os.Expand(s, func(name string) string {
		if len(name) == 1 && strings.ContainsAny(name, "*#$@!?-0123456789") {
			return "$" + name // a shell's own variables mean nothing here
		}
		name, fallback, _ := strings.Cut(name, ":-")
		if value := getenv(name); value != "" {
			return value
		}
		return fallback
	})
	return strings.ReplaceAll(s, kept, "$")
}
