package archive

import "fmt"

// Hard limits of the format.
const (
	maxBytes       = 1 << 50 // of a tar, so that sums of offsets stay far from overflowing
	maxFrames      = 1 << 17
	maxFrameLength = 8 << 20 // a frame is decoded in memory
	maxFrameSize   = maxFrameLength + maxFrameLength/64
)

// Limits bound what Write packs and what Restore accepts. Zero values mean
// the defaults.
type Limits struct {
	Entries int   // 1,000,000: 64 MiB of memory if all were directories
	Bytes   int64 // of the tar: 256 GiB
	Ratio   int64 // of the tar to the archive, once the tar is larger than 4 GiB: 200
	Index   int64 // bytes of the index: 64 MiB
}

// ratioFrom is how large a tar must be before its ratio counts: small trees that
// compress well do no harm.
const ratioFrom = 4 << 30

func (l Limits) orDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = 1_000_000
	}
	if l.Bytes == 0 {
		l.Bytes = 256 << 30
	}
	if l.Ratio == 0 {
		l.Ratio = 200
	}
	if l.Index == 0 {
		l.Index = 64 << 20
	}
	return l
}

// checkBytes judges the length of a tar against its compressed size.
func (l Limits) checkBytes(length, size int64) error {
	switch {
	case length > l.Bytes:
		return fmt.Errorf("%w: it holds %d bytes, at most %d are taken", ErrLimit, length, l.Bytes)
	case length > ratioFrom && length/l.Ratio > size:
		return fmt.Errorf("%w: %d bytes unpack to %d, at most %d times as much are taken", ErrLimit, size, length, l.Ratio)
	}
	return nil
}
