package cacheadmin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"podlane/cacheclient/archive"
	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
	"podlane/cacheclient/transfer"
)

// Details are what an entry says about itself.
type Details struct {
	Entry
	Paths     string    `json:"paths,omitempty"`
	Job       int64     `json:"job_id,omitempty"`
	JobName   string    `json:"job_name,omitempty"`
	Ref       string    `json:"ref,omitempty"`
	Sha       string    `json:"sha,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	Refreshed time.Time `json:"refreshed,omitzero"`
	Lockfiles key.Marks `json:"lockfiles,omitempty"`
	// Files to Digest are the archive's own.
	Files    int    `json:"files"`
	Entries  int    `json:"entries"`
	Unpacked int64  `json:"unpacked"`
	Digest   string `json:"digest"`
	Content  []File `json:"content,omitempty"`
}

// File is one entry of an archive.
type File struct {
	Path     string    `json:"path"`
	Mode     string    `json:"mode"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Link     string    `json:"link,omitempty"`
}

// Inspect reads an entry's metadata and its archive's index, and nothing else of
// the archive. content adds what the index lists.
func (a *Admin) Inspect(ctx context.Context, e Entry, content bool) (Details, error) {
	o, err := a.store.Head(ctx, e.Object)
	if err != nil {
		return Details{}, err
	}
	d := Details{
		Entry: e, Paths: o.Meta.Paths, Job: o.Meta.Job, JobName: o.Meta.JobName, Ref: o.Meta.Ref, Sha: o.Meta.Sha,
		Created: o.Meta.Created, Refreshed: o.Meta.Refreshed, Lockfiles: o.Meta.Lockfiles,
	}
	if d.Shortened && o.Meta.Key != "" {
		d.Key, d.Shortened = o.Meta.Key, false
	}
	index, err := a.index(ctx, o)
	if err != nil {
		return d, fmt.Errorf("%s: %w", e.Object, err)
	}
	summary := index.Summary()
	d.Files, d.Entry.Size, d.Unpacked, d.Digest = summary.Files, o.Size, summary.Bytes, summary.Digest
	d.Entries = summary.Entries
	if content {
		for f := range index.Entries() {
			d.Content = append(d.Content, File{Path: f.Path, Mode: f.Mode.String(), Size: f.Size, Modified: f.ModTime, Link: f.Link})
		}
	}
	return d, nil
}

// index reads as much of an archive's end as its index takes.
func (a *Admin) index(ctx context.Context, o store.Object) (*archive.Index, error) {
	need := archive.TailSize(o.Size)
	for {
		tail, err := a.tail(ctx, o, need)
		if err != nil {
			return nil, err
		}
		index, err := archive.ReadIndex(tail, o.Size, archive.Limits{})
		var short *archive.ShortTailError
		if errors.As(err, &short) && short.Need > need && short.Need <= o.Size {
			need = short.Need
			continue
		}
		return index, err
	}
}

func (a *Admin) tail(ctx context.Context, o store.Object, n int64) ([]byte, error) {
	if n == 0 {
		return nil, archive.ErrFormat
	}
	body, err := a.store.ReadRange(ctx, o, o.Size-n, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	tail := make([]byte, n)
	if _, err := io.ReadFull(body, tail); err != nil {
		return nil, fmt.Errorf("read the archive's end: %w", err)
	}
	return tail, nil
}

// Get copies an entry's archive, which `tar --zstd -x` unpacks. report is called
// now and then with the number of bytes written.
func (a *Admin) Get(ctx context.Context, e Entry, w io.Writer, report func(done int64)) error {
	o, err := a.store.Head(ctx, e.Object)
	if err != nil {
		return err
	}
	client := transfer.New(a.store.Transfer())
	defer client.Close()
	body, err := client.Reader(&ownSigner{a.store, o}, o.Size).Fetch(ctx, 0, o.Size)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(&reporting{Writer: w, report: report}, body)
	return err
}

// signatureLife is for an archive; a new one is made when it has run out.
const signatureLife = time.Hour

// ownSigner signs for the caller itself.
type ownSigner struct {
	store  *store.Store
	object store.Object
}

func (s *ownSigner) Read(ctx context.Context, _ bool) (transfer.Request, error) {
	signed, err := s.store.SignRead(ctx, s.object, signatureLife)
	return signed.Request, err
}

func (*ownSigner) Part(context.Context, int, int64, bool) (transfer.Request, error) {
	return transfer.Request{}, errors.New("archives are only read here")
}

type reporting struct {
	io.Writer
	report func(done int64)
	done   int64
}

func (r *reporting) Write(p []byte) (int, error) {
	n, err := r.Writer.Write(p)
	r.done += int64(n)
	r.report(r.done)
	return n, err
}
