package archive

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Longest names that a Linux file system takes; link targets are paths.
const (
	nameMax = 255
	pathMax = 4095
)

// cursor reads entries one after the other. Copies of it are places to come
// back to, so an index is never unfolded into a list: a million entries cost
// what their encoding does.
type cursor struct {
	b       []byte
	pos     int
	left    int // entries
	ordinal int // of the entry read last, from 0
	dirs    int // directories so far
	carried carried
}

// next reads the next entry into r, whose slices point into the index. io.EOF
// ends it. It checks what stands in an entry by itself; scan checks how entries fit together.
func (c *cursor) next(r *record) error {
	if c.left == 0 {
		return io.EOF
	}
	c.left--
	c.ordinal++
	if c.pos >= len(c.b) {
		return c.broken("ends too early")
	}
	tag := c.b[c.pos]
	c.pos++
	*r = record{kind: kind(tag & kindMask)}
	if tag&^tagBits != 0 || r.kind < kindDir || r.kind > kindLink {
		return c.broken("is of unknown kind %#x", tag)
	}
	up, ok := c.uvarint(pathMax)
	r.up = int(up)
	r.name = c.bytes(nameMax)
	if !ok || r.name == nil {
		return c.broken("has a damaged name")
	}
	if err := c.metadata(r, tag); err != nil {
		return err
	}
	if r.kind.hasSize() {
		size, ok := c.uvarint(maxBytes)
		if !ok {
			return c.broken("has a damaged size")
		}
		r.size = int64(size)
	}
	switch r.kind {
	case kindFile:
		blocks, ok := c.uvarint(maxBytes / tarBlock)
		if !ok || blocks == 0 {
			return c.broken("has its contents in no place")
		}
		r.data = roundUp(c.carried.dataEnd) + int64(blocks)*tarBlock
		c.carried.dataEnd = r.data + r.size
		if c.carried.dataEnd > maxBytes {
			return c.broken("lies behind the end of the tar")
		}
	case kindSymlink:
		if r.target = c.bytes(pathMax); len(r.target) == 0 {
			return c.broken("has a damaged target")
		}
	case kindLink:
		if r.back, ok = c.uvarint(uint64(c.ordinal)); !ok || r.back == 0 {
			return c.broken("is a link to no entry before it")
		}
	case kindDir, kindImplied:
		c.dirs++
	}
	return nil
}

// metadata reads mode, owner and time.
func (c *cursor) metadata(r *record, tag byte) error {
	p := &c.carried
	if r.kind.hasMode() {
		if tag&sameMode == 0 {
			mode, ok := c.uvarint(1 << 31)
			if !ok || mode&^permissions != 0 {
				return c.broken("has mode %#o, only permissions are taken", mode)
			}
			*p.modeOf(r.kind) = uint32(mode)
		}
		r.mode = *p.modeOf(r.kind)
	}
	if !r.kind.hasTime() {
		return nil
	}
	if tag&sameOwner == 0 {
		uid, ok1 := c.uvarint(1<<32 - 2) // the last number means "none" to chown
		gid, ok2 := c.uvarint(1<<32 - 2)
		if !ok1 || !ok2 {
			return c.broken("has a damaged owner")
		}
		p.uid, p.gid = uint32(uid), uint32(gid)
	}
	r.uid, r.gid = p.uid, p.gid
	delta, n := binary.Varint(c.b[c.pos:])
	c.pos += max(n, 0)
	nanos, ok := c.uvarint(999_999_999)
	if n <= 0 || !ok {
		return c.broken("has a damaged time")
	}
	p.seconds += delta // may wrap: any number is a time
	r.seconds, r.nanos = p.seconds, uint32(nanos)
	return nil
}

func (c *cursor) uvarint(limit uint64) (uint64, bool) {
	if c.pos > len(c.b) {
		return 0, false
	}
	v, n := binary.Uvarint(c.b[c.pos:])
	if n <= 0 || v > limit {
		return v, false
	}
	c.pos += n
	return v, true
}

// bytes reads a length and that many bytes, at most limit; nil means damage.
func (c *cursor) bytes(limit uint64) []byte {
	n, ok := c.uvarint(limit)
	if !ok || n > uint64(len(c.b)-c.pos) {
		return nil
	}
	b := c.b[c.pos : c.pos+int(n) : c.pos+int(n)]
	c.pos += int(n)
	return b
}

func (c *cursor) broken(format string, args ...any) error {
	return fmt.Errorf("%w: entry %d of its index %s", ErrFormat, c.ordinal, fmt.Sprintf(format, args...))
}

// validName reports whether a name names something in its directory: what every
// other check rests on.
func validName(name []byte) bool {
	s := string(name)
	return s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}
