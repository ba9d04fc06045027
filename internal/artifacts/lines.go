package artifacts

import (
	"fmt"
	"io"
	"strings"

	"podlane/internal/joblog"
)

// lines writes the job log in the runner's manner, one line a message, and
// never the job's token, wherever a message has it from.
type lines struct {
	log   *joblog.Log
	token string
}

func newLines(w io.Writer, token string) lines {
	return lines{log: joblog.New(w), token: token}
}

func (l lines) info(format string, args ...any) { l.write("", format, args...) }
func (l lines) warn(format string, args ...any) { l.write("WARNING: ", format, args...) }
func (l lines) fail(format string, args ...any) { l.write("ERROR: ", format, args...) }

func (l lines) write(level, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if l.token != "" {
		text = strings.ReplaceAll(text, l.token, "[MASKED]")
	}
	l.log.Linef("%s%s", level, text)
}

// tokenIn finds the value of --token in arguments that may not have been parsed.
func tokenIn(args []string) string {
	for i, arg := range args {
		name, value, joined := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case name != "token" || !strings.HasPrefix(arg, "-"):
		case joined:
			return value
		case i+1 < len(args):
			return args[i+1]
		}
	}
	return ""
}
