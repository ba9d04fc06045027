package archive

import (
	"encoding/binary"
	"strings"
)

// kind is what an entry is.
type kind byte

const (
	kindDir     kind = 1
	kindImplied kind = 2
	kindFile    kind = 3
	kindSymlink kind = 4
	kindLink    kind = 5

	kindMask  = 7
	sameMode  = 8
	sameOwner = 16
	tagBits   = kindMask | sameMode | sameOwner
)

// permissions are the only mode bits that an archive holds: no cache makes a
// program run as somebody else.
const permissions = 0o777

// frame is where a piece of the tar lies.
type frame struct {
	offset int64 // in the archive
	raw    int64 // offset in the tar
	size   int   // compressed
	length int   // raw
	digest [32]byte
}

// record is one entry as the index has it.
type record struct {
	kind     kind
	up       int
	name     []byte
	mode     uint32
	uid, gid uint32
	seconds  int64
	nanos    uint32
	size     int64
	data     int64 // offset of the contents in the tar
	target   []byte
	back     uint64 // a hard link's file stands that many entries before it
}

// carried is what a record's encoding leaves out because it is as before.
type carried struct {
	modes    [2]uint32 // of the last directory, of the last file
	uid, gid uint32
	seconds  int64
	dataEnd  int64 // end of the last contents in the tar
}

// modeOf points to the mode that a kind's next entry is compared with.
func (c *carried) modeOf(k kind) *uint32 {
	if k == kindDir {
		return &c.modes[0]
	}
	return &c.modes[1]
}

func (k kind) isDir() bool   { return k == kindDir || k == kindImplied }
func (k kind) hasMode() bool { return k != kindImplied && k != kindSymlink }
func (k kind) hasTime() bool { return k != kindImplied }
func (k kind) hasSize() bool { return k == kindFile || k == kindLink }

// indexWriter collects the entries of an index.
type indexWriter struct {
	entries int
	b       []byte
	carried carried
	dir     string // that the next entry is relative to
	up      int    // directories left since the last entry
}

// enter notes how to get from the last entry's directory to dir, and puts in
// the directories on the way that are not listed.
func (w *indexWriter) enter(dir string) {
	for w.dir != "" && !within(dir, w.dir) {
		w.dir, _ = splitPath(w.dir)
		w.up++
	}
	for w.dir != dir {
		rest := strings.TrimPrefix(dir[len(w.dir):], "/")
		name, _, _ := strings.Cut(rest, "/")
		w.put(dir[:len(dir)-len(rest)+len(name)], &record{kind: kindImplied, name: []byte(name)})
	}
}

// put adds the entry at a path, whose directory has been entered.
func (w *indexWriter) put(path string, r *record) {
	r.up, w.up = w.up, 0
	if r.kind.isDir() {
		w.dir = path
	}
	w.add(r)
}

func (w *indexWriter) add(r *record) {
	c := &w.carried
	tag := byte(r.kind)
	if r.kind.hasMode() && *c.modeOf(r.kind) == r.mode {
		tag |= sameMode
	}
	if r.kind.hasTime() && c.uid == r.uid && c.gid == r.gid {
		tag |= sameOwner
	}
	b := append(w.b, tag)
	b = binary.AppendUvarint(b, uint64(r.up))
	b = appendBytes(b, r.name)
	if r.kind.hasMode() && tag&sameMode == 0 {
		b = binary.AppendUvarint(b, uint64(r.mode))
		*c.modeOf(r.kind) = r.mode
	}
	if r.kind.hasTime() {
		if tag&sameOwner == 0 {
			b = binary.AppendUvarint(b, uint64(r.uid))
			b = binary.AppendUvarint(b, uint64(r.gid))
			c.uid, c.gid = r.uid, r.gid
		}
		b = binary.AppendVarint(b, r.seconds-c.seconds)
		b = binary.AppendUvarint(b, uint64(r.nanos))
		c.seconds = r.seconds
	}
	if r.kind.hasSize() {
		b = binary.AppendUvarint(b, uint64(r.size))
	}
	switch r.kind {
	case kindFile:
		b = binary.AppendUvarint(b, uint64(r.data-roundUp(c.dataEnd))/tarBlock)
		c.dataEnd = r.data + r.size
	case kindSymlink:
		b = appendBytes(b, r.target)
	case kindLink:
		b = binary.AppendUvarint(b, r.back)
	}
	w.b = b
	w.entries++
}

func appendBytes(b, s []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// finish is the index as the format has it.
func (w *indexWriter) finish(frames []frame) []byte {
	b := binary.AppendUvarint(nil, uint64(len(frames)))
	for i := range frames {
		b = binary.AppendUvarint(b, uint64(frames[i].size))
		b = binary.AppendUvarint(b, uint64(frames[i].length))
		b = append(b, frames[i].digest[:]...)
	}
	b = binary.AppendUvarint(b, uint64(w.entries))
	return append(b, w.b...)
}
