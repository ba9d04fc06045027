package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Fingerprint is a digest of what a tree looks like from outside: paths, types,
// permissions, link targets, and the sizes and modification times of what is no
// directory. A directory's time is left out: it changes when a program makes a
// temporary file, and what counts in a directory has paths of its own. No file
// is opened. It equals Summary.Fingerprint of an archive of the same tree.
func Fingerprint(ctx context.Context, root string, paths []string) (string, error) {
	paths, err := clean(paths)
	if err != nil {
		return "", err
	}
	top, err := openRoot(root)
	if err != nil {
		return "", err
	}
	defer top.close()
	// A stat of a path costs 2 µs and scales with processors.
	parts := runtime.GOMAXPROCS(0)
	size := (len(paths) + parts - 1) / max(parts, 1)
	total := new(printer)
	var mu sync.Mutex
	var first error
	var workers sync.WaitGroup
	for chunk := range slices.Chunk(paths, max(size, 1)) {
		workers.Go(func() {
			p := new(printer)
			err := p.addPaths(ctx, top, chunk)
			mu.Lock()
			defer mu.Unlock()
			total.merge(p)
			if first == nil {
				first = err
			}
		})
	}
	workers.Wait()
	return total.sum(), first
}

// addPaths adds what is at paths now.
func (p *printer) addPaths(ctx context.Context, top *rootDir, paths []string) error {
	w := newWalker(top)
	defer w.close()
	for i, path := range paths {
		if i%256 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var r record
		err := w.stat(path, &r)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, errSpecial) {
			continue
		}
		if err != nil {
			return err
		}
		p.add([]byte(path), &r)
	}
	return nil
}

// printer adds up the digests of entries: sums do not depend on the order, so
// entries can be added by several goroutines. It guards against mistakes, not
// against somebody who looks for two trees with the same sum.
type printer struct {
	words [4]uint64
	b     []byte
}

func (p *printer) add(path []byte, r *record) {
	if r.kind == kindImplied {
		return
	}
	k := r.kind
	if k == kindLink {
		k = kindFile // as it looks from outside
	}
	b := append(p.b[:0], byte(k))
	b = appendBytes(b, path)
	if r.kind.hasMode() {
		b = binary.AppendUvarint(b, uint64(r.mode))
	}
	if k != kindDir {
		b = binary.AppendVarint(b, r.seconds)
		b = binary.AppendUvarint(b, uint64(r.nanos))
		b = binary.AppendUvarint(b, uint64(r.size))
		b = appendBytes(b, r.target)
	}
	p.b = b
	digest := sha256.Sum256(b)
	for i := range p.words {
		p.words[i] += binary.LittleEndian.Uint64(digest[8*i:])
	}
}

func (p *printer) merge(o *printer) {
	for i := range p.words {
		p.words[i] += o.words[i]
	}
}

func (p *printer) sum() string {
	var b [32]byte
	for i, word := range p.words {
		binary.BigEndian.PutUint64(b[8*i:], word)
	}
	return hex.EncodeToString(b[:])
}
