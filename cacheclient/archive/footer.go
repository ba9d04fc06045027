package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

const (
	magic          = "podlane-cache-1\n"
	footerSize     = 64
	skippableMagic = 0x184D2A5C // one of the sixteen that zstd programs skip
	skippableHead  = 8
)

// footer is the last piece of an archive.
type footer struct {
	compressed, length int64 // of the index
	digest             [sha256.Size]byte
}

// sealIndex makes the skippable frame that ends an archive.
func sealIndex(index []byte) ([]byte, [sha256.Size]byte, error) {
	// Level 1: the index is mostly names and times, and neither gets much
	// smaller by trying harder.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, [sha256.Size]byte{}, err
	}
	defer enc.Close()
	b := enc.EncodeAll(index, make([]byte, skippableHead, skippableHead+len(index)/2+footerSize))
	digest := sha256.Sum256(b[skippableHead:])
	compressed := len(b) - skippableHead
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(compressed))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(index)))
	b = append(b, digest[:]...)
	binary.LittleEndian.PutUint32(b, skippableMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-skippableHead))
	return b, digest, nil
}

// TailSize is how much of the end of an archive to fetch for ReadIndex. It is
// enough for most trees; a *ShortTailError tells when it is not.
func TailSize(size int64) int64 {
	// An index takes about 13 bytes a file. In node_modules that is a
	// two-hundredth of the archive, and files are hardly smaller anywhere.
	return min(size, max(size/128, 256<<10), 4<<20)
}

// ShortTailError says how much of an archive's end ReadIndex needs.
type ShortTailError struct{ Need int64 }

func (e *ShortTailError) Error() string {
	return fmt.Sprintf("the index of the cache archive takes its last %d bytes, fewer were read", e.Need)
}

// ReadIndex reads the index from the last bytes of an archive of the given
// size. A *ShortTailError asks for more of them; ErrFormat and ErrLimit say that
// the archive is none to be restored.
func ReadIndex(tail []byte, size int64, l Limits) (*Index, error) {
	l = l.orDefaults()
	f, err := readFooter(tail, size, l)
	if err != nil {
		return nil, err
	}
	packed := tail[int64(len(tail))-footerSize-f.compressed:][:f.compressed]
	if digest := sha256.Sum256(packed); digest != f.digest {
		return nil, fmt.Errorf("%w: its index has the digest %x, its footer says %x: the object is damaged", ErrFormat, digest[:8], f.digest[:8])
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(f.length, 1<<20))), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	b, err := dec.DecodeAll(packed, make([]byte, 0, f.length))
	if err != nil {
		return nil, fmt.Errorf("%w: its index cannot be decoded: %w", ErrFormat, err)
	}
	if int64(len(b)) != f.length {
		return nil, fmt.Errorf("%w: its index has %d bytes, its footer says %d", ErrFormat, len(b), f.length)
	}
	x, err := parseIndex(b, size-footerSize-f.compressed-skippableHead, l)
	if err != nil {
		return nil, err
	}
	x.summary.Size, x.summary.Digest = size, hex.EncodeToString(f.digest[:])
	return x, nil
}

// readFooter reads the footer and checks that the index lies within the tail.
func readFooter(tail []byte, size int64, l Limits) (footer, error) {
	var f footer
	if size < footerSize+skippableHead || int64(len(tail)) > size {
		return f, fmt.Errorf("%w: it has %d bytes", ErrFormat, size)
	}
	if len(tail) < footerSize {
		return f, &ShortTailError{Need: footerSize}
	}
	b := tail[len(tail)-footerSize:]
	if string(b[:len(magic)]) != magic {
		return f, fmt.Errorf("%w: it does not end like one; it is truncated or something else", ErrFormat)
	}
	compressed, length := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	copy(f.digest[:], b[32:])
	if length > uint64(l.Index) || compressed > length+length/64+1024 {
		return f, fmt.Errorf("%w: its index has %d bytes (%d compressed), at most %d are taken", ErrLimit, length, compressed, l.Index)
	}
	f.compressed, f.length = int64(compressed), int64(length)
	need := f.compressed + footerSize + skippableHead
	if need > size {
		return f, fmt.Errorf("%w: its index would be larger than all of it", ErrFormat)
	}
	if int64(len(tail)) < need {
		return f, &ShortTailError{Need: need}
	}
	return f, nil
}
