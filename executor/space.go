package executor

import (
	"bytes"
	"io"
	"strings"
)

// noSpace is what programs print for ENOSPC, git and podlane-helper among them.
const noSpace = "no space left on device"

// longestLine bounds what is kept of a line of output.
const longestLine = 1000

// spaceWatch passes output on and remembers the first line that tells of a full
// disk. Afterwards there is nothing to see: git removes what it could not write.
type spaceWatch struct {
	w    io.Writer
	part []byte // of the present line
	line string
}

// Write implements io.Writer.
func (s *spaceWatch) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	for rest := p[:n]; len(rest) > 0 && s.line == ""; {
		piece, after, ended := bytes.Cut(rest, []byte("\n"))
		s.part = append(s.part, piece[:min(len(piece), max(longestLine-len(s.part), 0))]...)
		rest = after
		if strings.Contains(strings.ToLower(string(s.part)), noSpace) {
			line := string(s.part)
			s.line = strings.TrimSpace(line[strings.LastIndex(line, "\r")+1:]) // after git's progress
		}
		if ended {
			s.part = s.part[:0]
		}
	}
	return n, err
}
