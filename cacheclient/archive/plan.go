package archive

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// segmentLength is how much of the tar goes into one frame. A worker holds one
// frame, raw and compressed, so it decides about memory; a tree of some hundred
// MB makes enough frames to keep all workers busy.
const segmentLength = 4 << 20

// skippedNames is how many of the things that no cache holds are named.
const skippedNames = 5

// item is a piece of a segment: a header, contents of a file, or both.
type item struct {
	path   string
	header tarHeader // kind 0: none, the contents go on
	offset int64     // in the file
	n      int64     // bytes of the file
	pad    int64     // zeros behind them
}

// segment becomes a frame.
type segment struct {
	number int
	length int64
	items  []item
	slot   []byte // to compress into
}

// planner decides what goes where, before anything is read: the index says
// where everything lies, and workers fill the segments in any order.
type planner struct {
	limits   Limits
	emit     func(*segment) error
	walker   *walker
	index    indexWriter
	print    printer
	summary  Summary
	length   int64 // of the tar so far
	segment  *segment
	segments int
	files    map[inode]packed // files with several names
}

type inode struct{ dev, ino uint64 }

// packed is where a file with several names has been packed.
type packed struct {
	ordinal int
	path    string
}

// run plans all paths, which are clean.
func (p *planner) run(ctx context.Context, paths []string) error {
	p.files = map[inode]packed{}
	p.index.carried.modes = firstModes
	for i, path := range paths {
		if i%64 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := p.add(path); err != nil {
			return err
		}
	}
	if p.summary.Entries == 0 {
		return ErrEmpty
	}
	last := p.room()
	last.items = append(last.items, item{pad: tarEnd})
	last.length += tarEnd
	p.length += tarEnd
	return p.flush()
}

func (p *planner) add(path string) error {
	var r record
	st, err := p.walker.statAll(path, &r)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil // gone since it was listed
	case errors.Is(err, errSpecial):
		if len(p.summary.Skipped) < skippedNames {
			p.summary.Skipped = append(p.summary.Skipped, path)
		}
		return nil
	case err != nil:
		return err
	}
	dir, _ := splitPath(path)
	p.index.enter(dir)
	header := tarHeader{
		kind: '0', name: []byte(path), mode: r.mode, uid: r.uid, gid: r.gid, seconds: r.seconds, size: r.size,
	}
	switch r.kind {
	case kindDir:
		header.kind, header.name, header.size = '5', append(header.name, '/'), 0
	case kindSymlink:
		header.kind, header.link, header.mode = '2', r.target, 0o777
	case kindFile:
		p.summary.Files++
		if st.Nlink > 1 {
			p.link(&r, &header, inode{st.Dev, st.Ino}, path)
		}
	}
	return p.place(path, &r, header)
}

// link makes an entry a hard link if its file has been packed by another name.
func (p *planner) link(r *record, header *tarHeader, id inode, path string) {
	if first, ok := p.files[id]; ok {
		r.kind, r.back = kindLink, uint64(p.index.entries-first.ordinal)
		header.kind, header.link, header.size = '1', []byte(first.path), 0
		return
	}
	p.files[id] = packed{ordinal: p.index.entries, path: path}
}

// place gives an entry its place in the tar.
func (p *planner) place(path string, r *record, header tarHeader) error {
	head, size := header.length(), header.size
	s := p.room()
	if whole := head + roundUp(size); s.length > 0 && s.length+whole > segmentLength && whole <= segmentLength {
		if err := p.flush(); err != nil {
			return err
		}
		s = p.room()
	}
	r.data = p.length + head
	p.index.put(path, r)
	p.print.add([]byte(path), r)
	p.summary.Entries++
	p.summary.Bytes += size
	if p.index.entries > p.limits.Entries || p.length > p.limits.Bytes {
		return fmt.Errorf("%w: more than %d entries or %d bytes", ErrLimit, p.limits.Entries, p.limits.Bytes)
	}
	offset := int64(0)
	for {
		n := min(size-offset, max(segmentLength-s.length-head, 0))
		it := item{path: path, offset: offset, n: n}
		if offset == 0 && head > 0 {
			it.header = header
		}
		if offset += n; offset == size {
			it.pad = roundUp(size) - size
		}
		s.items = append(s.items, it)
		s.length += head + n + it.pad
		p.length += head + n + it.pad
		if offset == size {
			return nil
		}
		head = 0
		if err := p.flush(); err != nil {
			return err
		}
		s = p.room()
	}
}

// room is the segment that is being filled.
func (p *planner) room() *segment {
	if p.segment == nil {
		p.segment = &segment{number: p.segments}
		p.segments++
	}
	return p.segment
}

func (p *planner) flush() error {
	s := p.segment
	p.segment = nil
	return p.emit(s)
}
