package archive

import "encoding/binary"

// The tar of an archive is for other programs: Restore reads the index. It is
// GNU's, because names there are bytes, which PAX wants to be UTF-8, and because
// a PAX header for the nanoseconds would add 1 KiB to each file: with 40,000
// files that is a twelfth of the bytes to decode.

const (
	tarBlock   = 512
	tarEnd     = 2 * tarBlock // two blocks of zeros
	tarNameMax = 100
)

var longLink = []byte("././@LongLink")

// tarHeader describes one entry.
type tarHeader struct {
	kind     byte // '0' file, '1' hard link, '2' symbolic link, '5' directory
	name     []byte
	link     []byte
	mode     uint32
	uid, gid uint32
	size     int64
	seconds  int64
}

// length is how many bytes the header takes.
func (h *tarHeader) length() int64 {
	return tarBlock + longLength(len(h.name)) + longLength(len(h.link))
}

func longLength(n int) int64 {
	if n <= tarNameMax {
		return 0
	}
	return tarBlock + roundUp(int64(n)+1)
}

// roundUp rounds up to whole blocks.
func roundUp(n int64) int64 { return (n + tarBlock - 1) &^ (tarBlock - 1) }

// append writes the header behind b.
func (h *tarHeader) append(b []byte) []byte {
	b = appendLong(b, 'K', h.link)
	b = appendLong(b, 'L', h.name)
	return appendBlock(b, h)
}

// appendLong writes a name that is too long for its field, as an entry before
// the one it belongs to.
func appendLong(b []byte, kind byte, name []byte) []byte {
	if len(name) <= tarNameMax {
		return b
	}
	b = appendBlock(b, &tarHeader{kind: kind, name: longLink, size: int64(len(name) + 1)})
	b = append(b, name...)
	return append(b, zeros[:roundUp(int64(len(name)+1))-int64(len(name))]...)
}

// zeros pads: a name is padded by at most a block and its final zero.
var zeros [2 * tarBlock]byte

func appendBlock(b []byte, h *tarHeader) []byte {
	start := len(b)
	b = append(b, zeros[:tarBlock]...)
	f := b[start:]
	copy(f[:tarNameMax], h.name)
	tarNumber(f[100:108], int64(h.mode))
	tarNumber(f[108:116], int64(h.uid))
	tarNumber(f[116:124], int64(h.gid))
	tarNumber(f[124:136], h.size)
	tarNumber(f[136:148], h.seconds)
	copy(f[148:156], "        ")
	f[156] = h.kind
	copy(f[157:257], h.link)
	copy(f[257:265], "ustar  \x00") // GNU's magic
	sum := int64(0)
	for _, c := range f {
		sum += int64(c)
	}
	tarOctal(f[148:155], sum)
	f[154] = 0
	return b
}

// tarNumber writes a number in octal or, where that does not fit, as GNU does in
// binary with the top bit set.
func tarNumber(f []byte, n int64) {
	if n >= 0 && n < 1<<(3*(len(f)-1)) {
		tarOctal(f, n)
		return
	}
	var word [8]byte
	binary.BigEndian.PutUint64(word[:], uint64(n))
	fill := byte(0)
	if n < 0 {
		fill = 0xff
	}
	for i := range f {
		f[i] = fill
	}
	if len(f) <= len(word) {
		copy(f, word[len(word)-len(f):])
	} else {
		copy(f[len(f)-len(word):], word[:])
	}
	f[0] |= 0x80
}

// tarOctal fills all but the last byte of a field, which stays zero.
func tarOctal(f []byte, n int64) {
	for i := len(f) - 2; i >= 0; i-- {
		f[i] = byte('0' + n&7)
		n >>= 3
	}
}
