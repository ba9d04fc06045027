package main

import "fmt"

// bar is a promise: one of podlane's figures, alone or in relation to another
// subject's, stays below a limit.
type bar struct {
	rowKey
	way
	than  string // subject that the figure is divided by
	of    func(*row) float64
	unit  string
	limit float64
	why   string // it is missed, where that is known to be so
}

// cannot is why no restore gets near the floor.
const cannot = "the floor decodes nothing: floor+decode, which is what a restore from a compressed archive cannot do without, takes longer than this itself"

// bars are what caches promise on two processors.
func bars(far string) []bar {
	on := func(dataset, target, op string) rowKey { return rowKey{dataset, target, op, "podlane"} }
	all := []bar{
		{rowKey: on("node", "tmpfs", "restore"), than: "zip", of: wall, limit: 0.4},
		{rowKey: on("node", "tmpfs", "restore"), than: "tar", of: wall, limit: 0.6, why: "tar takes no more CPU seconds than podlane and keeps both processors nearly as busy: on two there is little to win"},
		{rowKey: on("node", "tmpfs", "restore"), than: "floor", of: wall, limit: 1.4, why: cannot},
		{rowKey: on("node", "ext4", "restore"), than: "zip", of: wall, limit: 0.55},
		{rowKey: on("gomod", "tmpfs", "restore"), than: "zip", of: wall, limit: 0.5},
		{rowKey: on("node", "tmpfs", "restore"), than: "zip", of: cpu, unit: "'s CPU seconds", limit: 0.5},
		{rowKey: on("gomod", "tmpfs", "restore"), than: "zip", of: cpu, unit: "'s CPU seconds", limit: 0.5},
		{rowKey: on("node", "tmpfs", "restore"), way: way{Net: far}, than: "zip", of: wall, limit: 0.33},
		{rowKey: on("node", "tmpfs", "restore"), of: first, unit: " s to the first file", limit: 0.2},
		{rowKey: on("node", "tmpfs", "save"), than: "zip", of: wall, limit: 0.35, why: "the S3 server on the same two processors takes its share of the time; in CPU seconds the bar is met"},
		{rowKey: on("node", "tmpfs", "save"), than: "tar", of: wall, limit: 0.9, why: "tar takes no more CPU seconds than podlane, and the S3 server's are the same"},
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
			verdict, why = "missed", bar.why
		}
		lines = append(lines, []string{name, fmt.Sprintf(format, bar.limit), fmt.Sprintf(format, figure), verdict, why})
	}
	return lines
}
