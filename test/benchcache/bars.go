package main

import (
	"fmt"
	"runtime"
)

// bar is a promise: one of podlane's figures, alone or in relation to another
// subject's, stays below a limit.
type bar struct {
	rowKey
	way
	than  string // subject that the figure is divided by
	of    func(*row) float64
	unit  string
	limit float64
}

// bars are what caches promise on two processors.
func bars(far string) []bar {
	on := func(dataset, target, op string) rowKey { return rowKey{dataset, target, op, "podlane"} }
	all := []bar{
		{rowKey: on("node", "tmpfs", "restore"), than: "zip", of: wall, limit: 0.4},
		{rowKey: on("node", "tmpfs", "restore"), than: "tar", of: wall, limit: 0.6},
		{rowKey: on("node", "tmpfs", "restore"), than: "floor", of: wall, limit: 1.4},
		{rowKey: on("node", "ext4", "restore"), than: "zip", of: wall, limit: 0.55},
		{rowKey: on("gomod", "tmpfs", "restore"), than: "zip", of: wall, limit: 0.5},
		{rowKey: on("node", "tmpfs", "restore"), than: "zip", of: cpu, unit: "'s CPU seconds", limit: 0.5},
		{rowKey: on("gomod", "tmpfs", "restore"), than: "zip", of: cpu, unit: "'s CPU seconds", limit: 0.5},
		{rowKey: on("node", "tmpfs", "restore"), way: way{Net: far}, than: "zip", of: wall, limit: 0.33},
		{rowKey: on("node", "tmpfs", "restore"), of: first, unit: " s to the first file", limit: 0.2},
		{rowKey: on("node", "tmpfs", "save"), than: "zip", of: wall, limit: 0.35},
		{rowKey: on("node", "tmpfs", "save"), than: "tar", of: wall, limit: 0.9},
		{rowKey: on("node", "tmpfs", "save-exists"), of: wall, unit: " s", limit: 0.15},
		{rowKey: on("node", "tmpfs", "save-unchanged"), of: wall, unit: " s", limit: 0.5},
	}
	for _, dataset := range []string{"node", "gomod", "big"} {
		for _, op := range []string{"restore", "save"} {
			all = append(all, bar{rowKey: on(dataset, "tmpfs", op), of: rss, unit: " MB", limit: 128})
		}
	}
	return all
}

// verdicts says of each bar that was measured whether it is met: bar, limit,
// figure, verdict, reason.
func (b *bench) verdicts() [][]string {
	far := ""
	if n := len(b.server.proxies); n > 0 {
		far = b.server.proxies[n-1].name
	}
	var lines [][]string
	for _, bar := range bars(far) {
		r := b.find(bar.rowKey, bar.way)
		if r == nil {
			continue
		}
		figure, name := bar.of(r), fmt.Sprintf("%s of %s on %s", bar.Op, bar.Dataset, bar.Target)
		if bar.Net != "" {
			name += ", " + bar.Net
		}
		format := "%.3f" + bar.unit
		if bar.unit == " MB" {
			format = "%.0f" + bar.unit
		}
		if bar.than != "" {
			figure, format = b.ratio(r, bar.than, bar.of), "%.2f of "+bar.than+bar.unit
		}
		if figure == 0 {
			continue
		}
		verdict, why := "met", ""
		if figure > bar.limit {
			verdict, why = "missed", b.why(r, bar)
		}
		lines = append(lines, []string{name, fmt.Sprintf(format, bar.limit), fmt.Sprintf(format, figure), verdict, why})
	}
	return lines
}

// why is what is known about a bar that is missed: the figure that nothing but
// fewer CPU seconds could get below.
func (b *bench) why(r *row, bar bar) string {
	other := b.find(rowKey{r.Dataset, r.Target, r.Op, bar.than}, r.way)
	decode := b.find(rowKey{r.Dataset, r.Target, r.Op, "floor+decode"}, r.way)
	switch {
	case bar.than == "floor" && decode != nil:
		return fmt.Sprintf("the floor decodes nothing: floor+decode alone, from memory and without times or digests, is %.2f of it", decode.Wall/other.Wall)
	case bar.than != "" && bar.unit == "" && r.way == (way{}):
		busy := (r.CPU + r.Server) / float64(runtime.NumCPU())
		return fmt.Sprintf("its own CPU seconds and the S3 server's, with no processor ever idle, are %.2f of %s", busy/other.Wall, bar.than)
	}
	return ""
}
