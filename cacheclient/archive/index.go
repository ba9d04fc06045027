package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"
)

// root is the directory that an archive is restored into, in Index.dirs.
const root = 0

// Index is what an archive holds.
type Index struct {
	b       []byte
	entries int
	first   cursor
	frames  []frame
	starts  []start // for each frame, before the first file that begins in it
	needed  bitset  // frames that some file's contents lie in
	splits  []split // files in more than one frame, in order
	dirs    []dir   // in the order of the walk, root first
	links   []int   // ordinals of files that hard links share, ascending
	length  int64   // of the tar
	summary Summary
}

// start is a place in the index to read entries from.
type start struct {
	cursor
	dir int32
}

// dir is a directory of the archive.
type dir struct {
	parent  int32
	implied bool
	mode    uint32
	uid     uint32
	gid     uint32
	nanos   uint32
	seconds int64
	name    []byte // points into the index
}

// split is a file whose contents lie in more than one frame.
type split struct {
	dir     int32
	ordinal int32
	record  record
	first   int // frame
	last    int
}

// parseIndex reads an index and checks it against itself. body is the length of
// all frames together.
func parseIndex(b []byte, body int64, l Limits) (*Index, error) {
	x := &Index{b: b}
	c := cursor{b: b}
	if err := x.readFrames(&c, body, l); err != nil {
		return nil, err
	}
	n, ok := c.uvarint(1 << 40)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: its index does not say how many entries it has", ErrFormat)
	case n > uint64(l.Entries):
		return nil, fmt.Errorf("%w: it has %d entries, at most %d are taken", ErrLimit, n, l.Entries)
	case n > uint64(len(b)):
		return nil, fmt.Errorf("%w: its index is too short for %d entries", ErrFormat, n)
	}
	return x, x.read(c, int(n))
}

// read makes the index of the entries that begin at a cursor.
func (x *Index) read(c cursor, entries int) error {
	x.dirs = []dir{{implied: true, parent: -1}}
	x.entries, c.left, c.ordinal = entries, entries, -1
	c.carried.modes = firstModes
	x.first = c
	return x.scan()
}

// firstModes are what the first entries' modes are compared with.
var firstModes = [2]uint32{0o755, 0o644}

func (x *Index) readFrames(c *cursor, body int64, l Limits) error {
	n, ok := c.uvarint(1 << 40)
	if !ok || n > uint64(len(c.b)) || n > maxFrames {
		return fmt.Errorf("%w: its index has a damaged number of frames", ErrFormat)
	}
	x.frames = make([]frame, n)
	offset := int64(0)
	for i := range x.frames {
		size, ok1 := c.uvarint(maxFrameSize)
		length, ok2 := c.uvarint(maxFrameLength)
		if !ok1 || !ok2 || size == 0 || length == 0 || len(c.b)-c.pos < len(x.frames[i].digest) {
			return fmt.Errorf("%w: frame %d has a damaged length", ErrFormat, i)
		}
		f := frame{offset: offset, raw: x.length, size: int(size), length: int(length)}
		copy(f.digest[:], c.b[c.pos:])
		c.pos += len(f.digest)
		x.frames[i] = f
		offset += int64(size)
		x.length += int64(length)
	}
	if offset != body {
		return fmt.Errorf("%w: its frames have %d bytes, its index says %d", ErrFormat, body, offset)
	}
	return l.checkBytes(x.length, offset)
}

// scan reads all entries once: that they are in order, which leaves no place
// for duplicates, that they lie within the tar, and where each frame's begin.
func (x *Index) scan() error {
	s := scanner{x: x, c: x.first, names: [][]byte{nil}, print: new(printer)}
	x.starts = make([]start, 0, len(x.frames))
	for {
		before := start{cursor: s.c, dir: s.dir}
		var r record
		err := s.c.next(&r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = s.entry(&r, before)
		}
		if err != nil {
			return err
		}
	}
	if s.c.pos != len(x.b) {
		return fmt.Errorf("%w: its index has %d bytes too many", ErrFormat, len(x.b)-s.c.pos)
	}
	for len(x.starts) < len(x.frames) {
		x.starts = append(x.starts, start{cursor: s.c, dir: s.dir})
	}
	x.summary.Fingerprint = s.print.sum()
	x.links = s.shared.list()
	return nil
}

// scanner is scan's state: where in the tree it is.
type scanner struct {
	x      *Index
	c      cursor
	dir    int32
	path   []byte   // of dir, with a slash behind it
	names  [][]byte // in each directory on the way down, the last name
	frame  int      // that the last file begins in
	files  bitset   // ordinals of files
	shared bitset   // ordinals of files that links share
	print  *printer
}

func (s *scanner) entry(r *record, before start) error {
	for range r.up {
		if s.dir == root {
			return s.c.broken("leaves the root")
		}
		s.path = s.path[:len(s.path)-1-len(s.x.dirs[s.dir].name)]
		s.dir = s.x.dirs[s.dir].parent
		s.names = s.names[:len(s.names)-1]
	}
	last := &s.names[len(s.names)-1]
	switch {
	case !validName(r.name):
		return s.c.broken("has the name %q", r.name)
	case bytes.Compare(*last, r.name) >= 0:
		return s.c.broken("is a duplicate or not in order: %q after %q", r.name, *last)
	case len(s.path)+len(r.name) > pathMax:
		return s.c.broken("has a path longer than %d bytes", pathMax)
	}
	*last = r.name
	path := append(s.path, r.name...)
	switch r.kind {
	case kindDir, kindImplied:
		s.x.dirs = append(s.x.dirs, dir{
			parent: s.dir, name: r.name, implied: r.kind == kindImplied,
			mode: r.mode, uid: r.uid, gid: r.gid, seconds: r.seconds, nanos: r.nanos,
		})
	case kindFile:
		if err := s.file(r, before); err != nil {
			return err
		}
	case kindLink:
		target := s.c.ordinal - int(r.back)
		if !s.files.has(target) {
			return s.c.broken("is a hard link to something that is no file of the archive")
		}
		s.shared.set(target)
		s.x.summary.Files++
	case kindSymlink:
		if bytes.IndexByte(r.target, 0) >= 0 {
			return s.c.broken("has a target with a zero byte")
		}
	}
	if r.kind != kindImplied {
		s.x.summary.Entries++
	}
	s.print.add(path, r)
	if r.kind.isDir() {
		s.dir = int32(len(s.x.dirs) - 1)
		s.path = append(path, '/')
		s.names = append(s.names, nil)
	}
	return nil
}

// file finds the frames that a file's contents lie in.
func (s *scanner) file(r *record, before start) error {
	x := s.x
	if r.data+r.size > x.length {
		return s.c.broken("lies behind the end of the tar")
	}
	s.files.set(s.c.ordinal)
	x.summary.Files++
	x.summary.Bytes += r.size
	f := s.frameOf(r)
	for len(x.starts) <= f {
		x.starts = append(x.starts, before)
	}
	last := f
	for r.data+r.size > x.frames[last].end() {
		last++
	}
	for i := f; i <= last; i++ {
		x.needed.set(i)
	}
	if last > f {
		x.splits = append(x.splits, split{dir: s.dir, ordinal: int32(s.c.ordinal), record: *r, first: f, last: last})
	}
	return nil
}

// frameOf is the frame that a file begins in: where its first byte is or, for
// an empty file, the last byte of its header.
func (s *scanner) frameOf(r *record) int {
	for r.begin() >= s.x.frames[s.frame].end() {
		s.frame++
	}
	return s.frame
}

// begin is the offset in the tar that decides which frame a file belongs to.
func (r *record) begin() int64 {
	if r.size == 0 {
		return r.data - 1
	}
	return r.data
}

// end is where a frame ends in the tar.
func (f *frame) end() int64 { return f.raw + int64(f.length) }

// Summary says what the archive holds.
func (x *Index) Summary() Summary { return x.summary }

// Entry is one entry of an archive.
type Entry struct {
	Path    string
	Mode    fs.FileMode // type and permissions
	ModTime time.Time
	Size    int64
	Link    string // target of a symbolic link, path of the file that a hard link shares
	UID     int
	GID     int
}

// Entries are all entries in the archive's order, without the directories that
// are only there because something in them was saved.
func (x *Index) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		shared := map[int]string{}
		links := x.links
		w := x.walk()
		for w.next() {
			path := string(w.path) + string(w.r.name)
			if len(links) > 0 && links[0] == w.c.ordinal {
				shared[links[0]], links = path, links[1:]
			}
			if w.r.kind == kindImplied {
				continue
			}
			e := w.r.entry(path)
			if w.r.kind == kindLink {
				e.Link = shared[w.c.ordinal-int(w.r.back)]
			}
			if !yield(e) {
				return
			}
		}
	}
}

func (r *record) entry(path string) Entry {
	e := Entry{
		Path: path, Mode: fs.FileMode(r.mode), ModTime: time.Unix(r.seconds, int64(r.nanos)),
		Size: r.size, Link: string(r.target), UID: int(r.uid), GID: int(r.gid),
	}
	switch r.kind {
	case kindDir:
		e.Mode |= fs.ModeDir
	case kindSymlink:
		e.Mode = fs.ModeSymlink | 0o777
	}
	return e
}

// walk reads the entries of an index that scan has found to be in order.
type walk struct {
	x    *Index
	c    cursor
	r    record
	dir  int32  // that the entry is in
	path []byte // of dir, with a slash behind it; only for a walk from the start
	from bool   // begun somewhere else: without paths
	into bool   // the entry before was a directory
}

func (x *Index) walk() *walk { return &walk{x: x, c: x.first} }

// walkFrom begins where a frame's files do.
func (x *Index) walkFrom(s start) walk { return walk{x: x, c: s.cursor, dir: s.dir, from: true} }

func (w *walk) next() bool {
	if w.into {
		w.dir, w.into = int32(w.c.dirs), false
		if !w.from {
			w.path = append(append(w.path, w.r.name...), '/')
		}
	}
	if w.c.next(&w.r) != nil { // the end: scan has seen all others
		return false
	}
	for range w.r.up {
		d := &w.x.dirs[w.dir]
		if w.dir = d.parent; !w.from {
			w.path = w.path[:len(w.path)-1-len(d.name)]
		}
	}
	w.into = w.r.kind.isDir()
	return true
}
