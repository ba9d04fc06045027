// Package cacheadmin is what people do with caches: look at what is there,
// fetch it and remove it. It works with the credentials of whoever calls it.
package cacheadmin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"podlane/cacheclient/key"
	"podlane/cacheclient/store"
	"podlane/executor/settings"
)

// Admin works on the caches of a bucket.
type Admin struct {
	store  *store.Store
	prefix string
}

// Open finds the bucket in the settings; Close it. Credentials are the caller's
// own: see executor.PersonsSource.
func Open(ctx context.Context, c settings.Cache, credentials store.Source, userAgent string, proxy func(*http.Request) (*url.URL, error)) (*Admin, error) {
	if !c.Enabled() {
		return nil, errors.New("the settings name no cache.bucket: there are no caches")
	}
	s, err := store.Open(ctx, store.Config{
		Endpoint: c.Endpoint, Region: c.Region, Bucket: c.Bucket, PathStyle: c.PathStyle, CAFile: c.CAFile,
		UserAgent: userAgent, Proxy: proxy,
	}, credentials)
	if err != nil {
		return nil, err
	}
	return &Admin{store: s, prefix: strings.Trim(c.Prefix, "/")}, nil
}

// Close drops idle connections.
func (a *Admin) Close() { a.store.Close() }

// Entry is a cache.
type Entry struct {
	Key string `json:"key"`
	// Shortened says that Key lacks its middle: a list has no more.
	Shortened bool      `json:"shortened,omitempty"`
	Project   int64     `json:"project_id"`
	Scope     key.Scope `json:"scope"`
	Instance  string    `json:"instance"`
	Size      int64     `json:"size"`
	// Modified is when it was written or refreshed.
	Modified time.Time `json:"modified"`
	Object   string    `json:"object"`
	// PathsID tells entries of one key with different paths apart.
	PathsID key.Paths `json:"paths_id"`
}

// Filter says which entries are meant; zero values mean all.
type Filter struct {
	Project int64
	Scope   key.Scope
	// Key is a whole key, or with a "*" at its end what keys start with.
	Key string
	// Before is a time that entries were last written before.
	Before time.Time
}

// List returns the entries, the youngest first.
func (a *Admin) List(ctx context.Context, f Filter) ([]Entry, error) {
	want, err := f.want()
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for o, err := range a.store.List(ctx, a.dir()) {
		if err != nil {
			return nil, err
		}
		parsed, err := key.ParseObject(a.prefix, o.Name)
		if err != nil || !f.matches(parsed, o, want) {
			continue // somebody else's objects are none of our business
		}
		entries = append(entries, entryOf(parsed, o))
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(b.Modified.Compare(a.Modified), strings.Compare(a.Object, b.Object))
	})
	return entries, nil
}

func (f Filter) want() (*key.Want, error) {
	if f.Key == "" || f.Key == "*" {
		return nil, nil
	}
	want, err := key.Fallback(f.Key)
	return &want, err
}

func (f Filter) matches(e key.Entry, o store.Object, want *key.Want) bool {
	return (f.Project == 0 || e.Project == f.Project) &&
		(f.Scope == "" || e.Scope == f.Scope) &&
		(want == nil || want.Matches(e)) &&
		(f.Before.IsZero() || o.Modified.Before(f.Before))
}

// Upload is one that its job has left unfinished.
type Upload struct {
	Object  string
	Project int64
	Begun   time.Time

	upload store.Upload
}

// Uploads returns those that were begun before a time.
func (a *Admin) Uploads(ctx context.Context, before time.Time) ([]Upload, error) {
	var uploads []Upload
	for u, err := range a.store.Uploads(ctx, a.dir()) {
		if err != nil {
			return uploads, err
		}
		parsed, err := key.ParseObject(a.prefix, u.Object)
		if err != nil || !u.Begun.Before(before) {
			continue // somebody else's, or still under way
		}
		uploads = append(uploads, Upload{Object: u.Object, Project: parsed.Project, Begun: u.Begun, upload: u.Upload})
	}
	return uploads, nil
}

// Abort ends an upload and frees what it holds.
func (a *Admin) Abort(ctx context.Context, u Upload) error { return a.store.Abort(ctx, u.upload) }

// dir is what all names of caches start with.
func (a *Admin) dir() string {
	if a.prefix == "" {
		return ""
	}
	return a.prefix + "/"
}

// One returns the only entry that name and filter mean: name is an object's
// name or a key.
func (a *Admin) One(ctx context.Context, name string, f Filter) (Entry, error) {
	if e, err := a.object(ctx, name); err == nil || !errors.Is(err, errNoObject) {
		return e, err
	}
	f.Key = name
	entries, err := a.List(ctx, f)
	switch {
	case err != nil:
		return Entry{}, err
	case len(entries) == 0:
		return Entry{}, fmt.Errorf("there is no cache %s: podlane cache ls shows what there is", name)
	case len(entries) > 1:
		var objects []string
		for _, e := range entries[:min(len(entries), 10)] {
			objects = append(objects, "  "+e.Object)
		}
		return Entry{}, fmt.Errorf("%d caches are called %s: name one by its object, or add --project and --scope\n%s", len(entries), name, strings.Join(objects, "\n"))
	}
	return entries[0], nil
}

var errNoObject = errors.New("not an object's name")

// object finds an entry by its object's name.
func (a *Admin) object(ctx context.Context, name string) (Entry, error) {
	parsed, err := key.ParseObject(a.prefix, name)
	if err != nil {
		return Entry{}, errNoObject
	}
	o, err := a.store.Head(ctx, name)
	if err != nil {
		return Entry{}, err
	}
	return entryOf(parsed, o), nil
}

func entryOf(e key.Entry, o store.Object) Entry {
	return Entry{
		Key: e.Readable, Shortened: !e.Whole, Project: e.Project, Scope: e.Scope, Instance: e.Instance,
		Size: o.Size, Modified: o.Modified, Object: o.Name, PathsID: e.Paths,
	}
}

// atOnce is how many deletions are under way at once.
const atOnce = 8

// Remove deletes entries and returns those that are gone, also with an error.
func (a *Admin) Remove(ctx context.Context, entries []Entry) ([]Entry, error) {
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		gone []Entry
		errs []error
		free = make(chan struct{}, atOnce)
	)
	for _, e := range entries {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			err := a.store.Delete(ctx, e.Object)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			gone = append(gone, e)
		})
	}
	wg.Wait()
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return gone, errors.Join(errs...)
}

// Total sums up the entries of a project's scope.
type Total struct {
	Project  int64     `json:"project_id"`
	Scope    key.Scope `json:"scope"`
	Instance string    `json:"instance"`
	Entries  int       `json:"entries"`
	Size     int64     `json:"size"`
	Oldest   time.Time `json:"oldest"`
	Newest   time.Time `json:"newest"`
}

// Totals sums up entries, the largest total first.
func Totals(entries []Entry) []Total {
	type place struct {
		instance string
		project  int64
		scope    key.Scope
	}
	sums := map[place]*Total{}
	var totals []*Total
	for _, e := range entries {
		at := place{e.Instance, e.Project, e.Scope}
		t := sums[at]
		if t == nil {
			t = &Total{Project: e.Project, Scope: e.Scope, Instance: e.Instance, Oldest: e.Modified, Newest: e.Modified}
			sums[at] = t
			totals = append(totals, t)
		}
		t.Entries++
		t.Size += e.Size
		if e.Modified.Before(t.Oldest) {
			t.Oldest = e.Modified
		}
		if e.Modified.After(t.Newest) {
			t.Newest = e.Modified
		}
	}
	slices.SortFunc(totals, func(a, b *Total) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), cmp.Compare(a.Project, b.Project), strings.Compare(string(a.Scope), string(b.Scope)), strings.Compare(a.Instance, b.Instance))
	})
	out := make([]Total, len(totals))
	for i, t := range totals {
		out[i] = *t
	}
	return out
}
