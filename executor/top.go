package executor

import (
	"context"
	"sync"

	"podlane/executor/pod"
	"podlane/podagent"
)

// TopJob is a live job with what its containers say.
type TopJob struct {
	pod.LiveJob
	// Stage is the one that runs, or the last one; Busy tells which.
	Stage string `json:"stage"`
	Busy  bool   `json:"busy"`
	// Cache is what became of the job's caches so far, if that is known.
	Cache string `json:"cache,omitempty"`
}

// asksAtOnce bounds how many pods are asked at the same time.
const asksAtOnce = 16

// Top lists the jobs that have a pod, the oldest first, and asks each what it
// does. A pod that does not answer is listed without.
func (o *Operator) Top(ctx context.Context) ([]TopJob, error) {
	client, err := o.connect()
	if err != nil {
		return nil, err
	}
	live, err := client.LiveJobs(ctx)
	if err != nil {
		return nil, err
	}
	jobs := make([]TopJob, len(live))
	slots := make(chan struct{}, asksAtOnce)
	var asks sync.WaitGroup
	for i := range live {
		jobs[i].LiveJob = live[i]
		if live[i].State != pod.Running && live[i].State != pod.Starting {
			continue
		}
		asks.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			jobs[i].ask(ctx, o, client.In(jobs[i].Namespace))
		})
	}
	asks.Wait()
	return jobs, nil
}

// ask finds the stage that began last in either container. Stages that move
// caches are none there: they have a session instead.
func (j *TopJob) ask(ctx context.Context, o *Operator, client *pod.Client) {
	var latest podagent.StageStatus
	caching := ""
	for _, container := range []string{pod.HelperContainer, pod.BuildContainer} {
		status, err := containerStatus(ctx, client, o.Settings, j.Pod, container)
		if err != nil {
			continue
		}
		j.State = pod.Running // which the pod's status tells a second later
		if status.CacheSession {
			caching = "restore_cache"
		}
		for _, s := range status.Stages {
			if caching != "" && container == pod.BuildContainer {
				caching = "archive_cache" // after the script, that is
			}
			if s.Began.After(latest.Began) {
				latest = s
			}
		}
	}
	j.Stage, j.Busy, j.Cache = stageName(latest.ID), latest.Running, latest.Cache
	if caching != "" {
		j.Stage, j.Busy = caching, true
	}
}
