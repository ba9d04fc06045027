package archive

import (
	"bytes"
	"sort"
	"sync"

	"golang.org/x/sys/unix"
)

// holeLength is the piece of a large file that is left as a hole if it is all
// zeros.
const holeLength = 64 << 10

var hole [holeLength]byte

// splitFile is a file that several workers fill, each from its own frame.
type splitFile struct {
	mu   sync.Mutex
	open bool
	fd   int
	left int // frames
}

// splitInto finds the file whose contents go on at an offset of the tar, -1 if
// there is none.
func (x *Index) splitInto(offset int64) int {
	i := sort.Search(len(x.splits), func(i int) bool { return x.splits[i].record.data >= offset }) - 1
	if i >= 0 && x.splits[i].record.data+x.splits[i].record.size > offset {
		return i
	}
	return -1
}

// splitOf finds a split file by its ordinal.
func (x *Index) splitOf(ordinal int) int {
	return sort.Search(len(x.splits), func(i int) bool { return int(x.splits[i].ordinal) >= ordinal })
}

// placePiece writes the piece of a file that is in a frame. Whoever comes first
// creates the file, whoever comes last gives it its time.
func (r *restorer) placePiece(p *placer, i int, f *frame, raw []byte) error {
	s, file := &r.tree.index.splits[i], &r.files[i]
	rec := &s.record
	if err := file.create(p, s); err != nil {
		return err
	}
	begin, end := max(rec.data, f.raw), min(rec.data+rec.size, f.end())
	err := writeSparse(file.fd, raw[begin-f.raw:end-f.raw], begin-rec.data)
	if err == nil {
		err = file.done(r.tree, rec)
	}
	if err != nil {
		return p.failed("write", s.dir, rec, err)
	}
	r.options.Progress.Bytes.Add(end - begin)
	return nil
}

func (s *splitFile) create(p *placer, what *split) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		return nil
	}
	fd, err := p.create(what.dir, int(what.ordinal), &what.record)
	if err != nil {
		return err
	}
	s.fd, s.open, s.left = fd, true, what.last-what.first+1
	if err := unix.Ftruncate(fd, what.record.size); err != nil {
		return p.failed("enlarge", what.dir, &what.record, err)
	}
	return nil
}

// done counts a piece; with the last one the file is complete.
func (s *splitFile) done(t *tree, rec *record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left--; s.left > 0 {
		return nil
	}
	err := t.dress(s.fd, rec)
	s.open = false
	if e := unix.Close(s.fd); err == nil {
		err = e
	}
	return err
}

// closeFiles closes what an error left open.
func (r *restorer) closeFiles() {
	for i := range r.files {
		if r.files[i].open {
			_ = unix.Close(r.files[i].fd)
		}
	}
}

// writeSparse writes b but for its zeros: files that had holes have them again.
func writeSparse(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n := dataLength(b)
		if err := writeAt(fd, b[:n], offset); err != nil {
			return err
		}
		b, offset = b[n:], offset+int64(n)
		for len(b) >= holeLength && bytes.Equal(b[:holeLength], hole[:]) {
			b, offset = b[holeLength:], offset+holeLength
		}
	}
	return nil
}

// dataLength is how far b goes to the next hole.
func dataLength(b []byte) int {
	n := 0
	for len(b)-n >= holeLength && !bytes.Equal(b[n:n+holeLength], hole[:]) {
		n += holeLength
	}
	if len(b)-n < holeLength {
		return len(b)
	}
	return n
}
