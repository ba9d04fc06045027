package archive

import (
	"bytes"
	"errors"
	"fmt"
)

// A journal is its first line, each path with a zero byte behind it, and an
// end that shows that all of it was written. Paths may be any bytes.
const (
	journalBegin = "podlane-restore-1\n"
	journalEnd   = "\x00end\n" // no path is empty
)

// EncodeJournal makes of the list that Restore gives to Begin the bytes to keep
// until it has ended: with them, Remove can be called by a later process.
func EncodeJournal(created []string) []byte {
	b := []byte(journalBegin)
	for _, path := range created {
		b = append(b, path...)
		b = append(b, 0)
	}
	return append(b, journalEnd...)
}

// DecodeJournal is EncodeJournal's reverse. An incomplete journal is an error:
// nothing had been created yet when it was written.
func DecodeJournal(b []byte) ([]string, error) {
	b, ok := bytes.CutPrefix(b, []byte(journalBegin))
	if !ok {
		return nil, errors.New("not a journal of a cache restore")
	}
	b, ok = bytes.CutSuffix(b, []byte(journalEnd))
	if !ok || len(b) > 0 && b[len(b)-1] != 0 {
		return nil, errors.New("journal of a cache restore is incomplete")
	}
	var created []string
	for len(b) > 0 {
		path, rest, _ := bytes.Cut(b, []byte{0})
		if len(path) == 0 || path[0] == '/' {
			return nil, fmt.Errorf("journal of a cache restore names %s, expected a path below the project", quote(string(path)))
		}
		created, b = append(created, string(path)), rest
	}
	return created, nil
}
