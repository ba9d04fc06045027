// Package archive packs a cache into one object and restores it again. It
// knows neither S3 nor HTTP: bytes go out in parts (Sink) and come in as ranges
// (Fetch).
//
// # Format
//
// An archive is a GNU tar, cut into independent zstd frames of some MiB each,
// and behind them one skippable frame with the index, so that
// `tar --zstd -x` reads it too:
//
//	frame 1 | frame 2 | … | frame n | skippable frame: index (zstd), footer
//
// The footer is the last 64 bytes of the object:
//
//	 0  magic "podlane-cache-1\n"
//	16  length of the compressed index, 8 bytes, little endian
//	24  length of the index itself, 8 bytes
//	32  SHA-256 of the compressed index, 32 bytes
//
// The index names every entry and every frame; Restore believes it alone and
// does not read the tar headers. A frame's digest is that of its compressed
// bytes: checking it costs a sixth of decoding, and nothing is decoded that
// was not checked. The index's own digest therefore stands for the whole
// archive, like the root of a Merkle tree.
//
// Numbers of the index are varints as in encoding/binary. It begins with
// the number of frames and, for each, its compressed length, raw length and
// digest; then the number of entries and, for each, in the order of a
// depth-first walk with names sorted by bytes:
//
//	tag     1 byte: kind (low 3 bits), sameMode (8), sameOwner (16)
//	up      how many directories to leave before this entry
//	name    length and bytes; a directory's entry enters it
//	mode    permission bits, without sameMode
//	owner   uid and gid, without sameOwner
//	time    seconds since the entry before (signed), nanoseconds
//	size    of a file or hard link
//	data    of a file: the distance of its contents from those before, in tar
//	        blocks
//	target  of a symbolic link: length and bytes; of a hard link: how many
//	        entries before this one its file stands
//
// A directory that is only there because something in it was saved ("implied")
// has no more than tag, up and name; a symbolic link has no mode. Offsets count in the tar, not in the object, so a later version can
// take frames from elsewhere.
//
// tar alone restores times to the second; Restore does to the nanosecond.
package archive
