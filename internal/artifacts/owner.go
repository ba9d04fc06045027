package artifacts

import (
	"encoding/binary"
	"io/fs"
	"syscall"
)

// ownerTag marks Info-ZIP's "new Unix" extra field: uid and gid. The runner
// writes and reads it (helpers/archives/zip_extra_unix.go), and it matters: a
// job whose image has a user of its own must be able to write to the files that
// another such job made, although the helper container works as root.
// Format: https://libzip.org/specifications/extrafld.txt, 0x7875.
const ownerTag = 0x7875

// ownerField returns the extra field for a file, nil if the system does not say
// whose it is.
func ownerField(info fs.FileInfo) []byte {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	field := binary.LittleEndian.AppendUint16(nil, ownerTag)
	field = binary.LittleEndian.AppendUint16(field, 11) // bytes that follow
	field = append(field, 1, 4)                         // version, size of the uid
	field = binary.LittleEndian.AppendUint32(field, stat.Uid)
	field = append(field, 4)
	return binary.LittleEndian.AppendUint32(field, stat.Gid)
}

// ownerIn finds uid and gid in an entry's extra fields.
func ownerIn(extra []byte) (uid, gid int, ok bool) {
	for len(extra) >= 4 {
		tag, size := binary.LittleEndian.Uint16(extra), int(binary.LittleEndian.Uint16(extra[2:]))
		extra = extra[4:]
		if size > len(extra) {
			return 0, 0, false
		}
		if tag == ownerTag && size == 11 && extra[0] == 1 && extra[1] == 4 && extra[6] == 4 {
			return int(binary.LittleEndian.Uint32(extra[2:])), int(binary.LittleEndian.Uint32(extra[7:])), true
		}
		extra = extra[size:]
	}
	return 0, 0, false
}
