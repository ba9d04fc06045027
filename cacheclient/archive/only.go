package archive

import "strings"

// Only returns the index of what allow names: files, links and directories that
// the archive has of its own. Restore then fetches the frames that those lie in
// and no others. A hard link whose file is not among them can't be made: lost
// are their paths. ErrOther means that nothing is left.
func (x *Index) Only(allow func(path string) bool) (part *Index, lost []string, err error) {
	out := indexWriter{carried: carried{modes: firstModes}}
	shared := map[int]int{} // files that links share: their ordinals there, by those here
	links := x.links
	for w := x.walk(); w.next(); {
		first := len(links) > 0 && links[0] == w.c.ordinal
		if first {
			links = links[1:]
		}
		r, path := w.r, string(w.path)+string(w.r.name)
		if r.kind == kindImplied || !allow(path) {
			continue
		}
		file, ok := shared[w.c.ordinal-int(r.back)]
		if r.kind == kindLink && !ok {
			lost = append(lost, path)
			continue
		}
		out.enter(strings.TrimSuffix(string(w.path), "/"))
		if first {
			shared[w.c.ordinal] = out.entries
		}
		if r.kind == kindLink {
			r.back = uint64(out.entries - file)
		}
		out.put(path, &r)
	}
	if out.entries == 0 {
		return nil, lost, ErrOther
	}
	part = &Index{b: out.b, frames: x.frames, length: x.length}
	if err := part.read(cursor{b: out.b}, out.entries); err != nil {
		return nil, lost, err
	}
	part.summary.Size, part.summary.Digest = part.wanted(), x.summary.Digest
	return part, lost, nil
}
