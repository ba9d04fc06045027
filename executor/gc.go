package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"podlane/executor/pod"
)

// GC looks for what jobs have left on the cluster.
type GC struct {
	// Grace is how long a job must have been over.
	Grace time.Duration
	// Delete takes away what is found; otherwise it is only listed.
	Delete bool
	// Namespaces looks for namespaces of single jobs too.
	Namespaces bool
	// Jobs limits the look to some jobs: see pod.Sweep.
	Jobs []string
}

// Collected is something that was found.
type Collected struct {
	pod.Leftover
	AgeSeconds int64 `json:"age_seconds"`
	// Deleted is set if it has been taken away. What has changed since it was
	// found is left alone.
	Deleted bool `json:"deleted"`
}

// CollectGarbage finds what belongs to jobs that are over, and deletes it if
// asked to. What it has found and done so far comes with an error, too.
func (o *Operator) CollectGarbage(ctx context.Context, gc GC) ([]Collected, error) {
	client, err := o.connect()
	if err != nil {
		return nil, err
	}
	// A clock that is ahead would make live jobs look old.
	now, err := client.Time(ctx)
	if err != nil {
		return nil, err
	}
	sweep := pod.Sweep{Grace: gc.Grace, Now: now, Jobs: gc.Jobs}
	looks := []struct {
		what string
		look func(context.Context, *pod.Client) ([]pod.Leftover, error)
	}{{"pods", sweep.Pods}, {"secrets", sweep.Secrets}}
	if gc.Namespaces {
		looks = append(looks, looks[0])
		looks[2].what, looks[2].look = "namespaces", sweep.Namespaces
	}
	var all []Collected
	var errs []error
	for _, l := range looks {
		found, err := l.look(ctx, client)
		if pod.IsForbidden(err) && l.what != "pods" {
			o.Log.Warnf("%s are not looked at: %v; hint: deploy/gc-cronjob.yaml has an account that may", l.what, err)
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("look for leftover %s: %w", l.what, err))
			continue
		}
		for _, leftover := range found {
			c := Collected{Leftover: leftover, AgeSeconds: int64(leftover.Age.Seconds())}
			if gc.Delete {
				c.Deleted, err = client.Take(ctx, leftover)
				errs = append(errs, err)
			}
			all = append(all, c)
		}
	}
	return all, errors.Join(errs...)
}
