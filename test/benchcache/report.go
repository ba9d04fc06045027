package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// rowKey is what was measured.
type rowKey struct {
	Dataset string `json:"dataset"`
	Target  string `json:"target"`
	Op      string `json:"op"`
	Subject string `json:"subject"`
}

// way is how it was measured where that is not plain: over a slower network, or
// with another number of processors.
type way struct {
	Net   string `json:"net,omitempty"`
	Procs int    `json:"gomaxprocs,omitempty"`
}

// plainRow is medians over runs: a line of cache.json.
type plainRow struct {
	rowKey
	Wall  float64 `json:"wall_s"`
	CPU   float64 `json:"cpu_s"`
	RSS   float64 `json:"rss_mb"`
	Bytes int64   `json:"bytes"`
	Files int     `json:"files"`
	N     int     `json:"n"`
}

// row is a line of cache-all.json.
type row struct {
	plainRow
	way
	Least   float64 `json:"min_wall_s"`
	First   float64 `json:"first_file_s,omitempty"`
	Server  float64 `json:"server_cpu_s"`
	results []result
}

func (r *row) summarize() {
	of := func(value func(result) float64) []float64 {
		var all []float64
		for _, x := range r.results {
			all = append(all, value(x))
		}
		slices.Sort(all)
		return all
	}
	walls := of(func(x result) float64 { return x.wall })
	r.N, r.Wall, r.Least = len(walls), median(walls), walls[0]
	r.CPU = median(of(func(x result) float64 { return x.cpu }))
	r.RSS = median(of(func(x result) float64 { return float64(x.rss) / 1024 }))
	r.Server = median(of(func(x result) float64 { return x.server }))
	r.First = median(of(func(x result) float64 { return x.first }))
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// show prints all rows and writes them to files.
func (b *bench) show() error {
	if len(b.rows) == 0 {
		return nil
	}
	var plain []plainRow
	for _, r := range b.rows {
		r.summarize()
		if r.way == (way{}) && r.Subject != "floor+decode" {
			plain = append(plain, r.plainRow)
		}
	}
	lines := b.table()
	fmt.Fprintln(b.out)
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	fmt.Fprintln(w)
	for _, line := range b.verdicts() {
		fmt.Fprintln(w, strings.Join(line, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	err := errors.Join(b.write("cache.json", plain), b.write("cache-all.json", b.rows))
	if b.record == "" {
		return err
	}
	return errors.Join(err, b.recordIn(b.record))
}

func (b *bench) write(name string, rows any) error {
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, name), append(text, '\n'), 0o644)
}

// table has each row with how it relates to the other subjects.
func (b *bench) table() [][]string {
	lines := [][]string{{"data", "on", "op", "subject", "way", "wall s", "min", "cpu s", "S3's", "MB", "/zip", "/tar", "/floor", "cpu/zip"}}
	for _, r := range b.rows {
		line := []string{
			r.Dataset, r.Target, r.Op, r.Subject, r.way.String(),
			fmt.Sprintf("%.3f", r.Wall), fmt.Sprintf("%.3f", r.Least), fmt.Sprintf("%.2f", r.CPU), fmt.Sprintf("%.2f", r.Server), fmt.Sprintf("%.0f", r.RSS),
		}
		for _, ratio := range []float64{b.ratio(r, "zip", wall), b.ratio(r, "tar", wall), b.ratio(r, "floor", wall), b.ratio(r, "zip", cpu)} {
			text := ""
			if r.Subject == "podlane" && ratio > 0 {
				text = fmt.Sprintf("%.2f", ratio)
			}
			line = append(line, text)
		}
		lines = append(lines, line)
	}
	return lines
}

func (w way) String() string {
	if w.Procs > 0 {
		return fmt.Sprintf("GOMAXPROCS=%d", w.Procs)
	}
	return w.Net
}

func wall(r *row) float64  { return r.Wall }
func cpu(r *row) float64   { return r.CPU }
func rss(r *row) float64   { return r.RSS }
func first(r *row) float64 { return r.First }

// ratio relates a row to another subject's of the same run; 0 means that there
// is none.
func (b *bench) ratio(r *row, subject string, of func(*row) float64) float64 {
	o := b.find(rowKey{r.Dataset, r.Target, r.Op, subject}, r.way)
	if o == nil || of(o) == 0 {
		return 0
	}
	return of(r) / of(o)
}

func (b *bench) find(key rowKey, w way) *row {
	i := slices.IndexFunc(b.rows, func(r *row) bool { return r.rowKey == key && r.way == w })
	if i < 0 {
		return nil
	}
	return b.rows[i]
}

// rowFor finds or makes the row that a measurement's runs are collected in.
func (b *bench) rowFor(key rowKey, w way) *row {
	r := b.find(key, w)
	if r == nil {
		r = &row{plainRow: plainRow{rowKey: key}, way: w}
		b.rows = append(b.rows, r)
	}
	return r
}

// Marks around what recordIn writes.
const (
	recordBegin = "<!-- measured: begin; written by make bench-cache BENCH='-record docs/cache-speed.md' -->\n"
	recordEnd   = "<!-- measured: end -->\n"
)

// recordIn puts the tables into a page, between their marks.
func (b *bench) recordIn(page string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(text, []byte(recordBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(recordEnd))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the tables, expected a line %s", page, strings.TrimSpace(recordBegin))
	}
	var out bytes.Buffer
	out.Write(before)
	out.WriteString(recordBegin)
	fmt.Fprintf(&out, "%d processors, medians of %d runs.\n\n", runtime.NumCPU(), b.runs)
	verdicts := append([][]string{{"bar", "limit", "measured", "", "why"}}, b.verdicts()...)
	markdown(&out, verdicts)
	out.WriteByte('\n')
	markdown(&out, b.table())
	out.WriteString(recordEnd)
	out.Write(after)
	return os.WriteFile(page, out.Bytes(), 0o644)
}

func markdown(out *bytes.Buffer, lines [][]string) {
	for i, line := range lines {
		fmt.Fprintf(out, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(out, "|%s\n", strings.Repeat(" --- |", len(line)))
		}
	}
}
