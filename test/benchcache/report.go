package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// rowKey is what was measured.
type rowKey struct {
	Dataset string `json:"dataset"`
	Target  string `json:"target"`
	Op      string `json:"op"`
	Subject string `json:"subject"`
	Net     string `json:"net,omitempty"`
	Procs   int    `json:"gomaxprocs,omitempty"`
}

// row is medians over runs.
type row struct {
	rowKey
	Wall    float64 `json:"wall_s"`
	CPU     float64 `json:"cpu_s"`
	RSS     float64 `json:"rss_mb"`
	Bytes   int64   `json:"bytes"`
	Files   int     `json:"files"`
	N       int     `json:"n"`
	Least   float64 `json:"min_wall_s"`
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
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// show prints all rows, each with how it relates to the other subjects, and
// writes them to cache.json.
func (b *bench) show() error {
	if len(b.rows) == 0 {
		return nil
	}
	for _, r := range b.rows {
		r.summarize()
	}
	fmt.Fprintln(b.out)
	w := tabwriter.NewWriter(b.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "data\ton\top\tsubject\t\twall s\tmin\tcpu s\tMB\t/zip\t/tar\t/floor\tcpu/zip")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.3f\t%.3f\t%.2f\t%.0f\t%s\t%s\t%s\t%s\n", r.Dataset, r.Target, r.Op, r.Subject, where(r.Net, r.Procs),
			r.Wall, r.Least, r.CPU, r.RSS, b.ratio(r, "zip", wall), b.ratio(r, "tar", wall), b.ratio(r, "floor", wall), b.ratio(r, "zip", cpu))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	text, err := json.MarshalIndent(b.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, "cache.json"), append(text, '\n'), 0o644)
}

func wall(r *row) float64 { return r.Wall }
func cpu(r *row) float64  { return r.CPU }

// ratio relates podlane's row to another subject's of the same run.
func (b *bench) ratio(r *row, subject string, of func(*row) float64) string {
	key := r.rowKey
	key.Subject = subject
	i := slices.IndexFunc(b.rows, func(o *row) bool { return o.rowKey == key })
	if r.Subject != "podlane" || i < 0 || of(b.rows[i]) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", of(r)/of(b.rows[i]))
}
