package archive

import "testing"

func TestFit(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		memory                     int64
		restoring, connections     int
		writing, partSize, uploads int
	}{
		{0, 8, 8, 8, 8 * mib, 3},
		{1 << 30, 8, 8, 8, 8 * mib, 3},
		{256 * mib, 8, 8, 8, 8 * mib, 3},
		{128 * mib, 5, 5, 2, 8 * mib, 3},
		{64 * mib, 1, 3, 1, 5 * mib, 2},
		{32 * mib, 1, 1, 1, 5 * mib, 2},
	} {
		r := RestoreOptions{Workers: 8, Memory: tt.memory}.orDefaults()
		w := WriteOptions{Workers: 8, Memory: tt.memory}.orDefaults()
		if r.Workers != tt.restoring || r.Connections != tt.connections {
			t.Errorf("restore in %d MiB: %d workers, %d connections, want %d and %d", tt.memory/mib, r.Workers, r.Connections, tt.restoring, tt.connections)
		}
		if w.Workers != tt.writing || w.PartSize != tt.partSize || w.Uploads != tt.uploads {
			t.Errorf("write in %d MiB: %d workers, %d parts of %d, want %d, %d and %d", tt.memory/mib, w.Workers, w.Uploads, w.PartSize, tt.writing, tt.uploads, tt.partSize)
		}
	}
}
