package executor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"podlane/executor/pod"
	"podlane/podagent"
)

// attachPause lies between two looks for the next stage: a person watches.
const attachPause = time.Second

// Attach writes what a job's stages have printed and follows the job until its
// pod ends or ctx does. It changes nothing, and keeps no pod alive.
//
// What the runner masks in the job log is not masked here.
func (o *Operator) Attach(ctx context.Context, job string) error {
	client, err := o.connect()
	if err != nil {
		return err
	}
	p, err := client.Find(ctx, job)
	if err != nil {
		return err
	}
	client = client.In(p.Namespace)
	o.Log.Linef("following %s", p.Name)
	a := &attachment{o: o, client: client, pod: p.Name, written: map[string]int64{}, over: map[string]bool{}}
	for {
		worked, err := a.look(ctx)
		if ctx.Err() == nil {
			if lost := client.WhyLost(ctx, p.Name); lost != nil {
				o.Log.Linef("the job is over: %v", lost)
				return nil
			}
			a.complain(err)
		}
		if worked {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(attachPause):
		}
	}
}

// attachment is one person's look at one job.
type attachment struct {
	o       *Operator
	client  *pod.Client
	pod     string
	written map[string]int64
	over    map[string]bool
	said    bool
}

// complain tells once that the pod does not answer.
func (a *attachment) complain(err error) {
	if err != nil && !a.said {
		a.o.Log.Warnf("the pod does not answer, trying again: %v", err)
	}
	a.said = err != nil
}

// place is a stage and where it runs.
type place struct {
	podagent.StageStatus
	container string
}

// look writes the stages that have not been written yet, in the order in which
// they began, and follows the one that runs.
func (a *attachment) look(ctx context.Context) (worked bool, err error) {
	var stages []place
	var errs []error
	for _, container := range []string{pod.HelperContainer, pod.BuildContainer} {
		status, err := containerStatus(ctx, a.client, a.o.Settings, a.pod, container)
		errs = append(errs, err)
		for _, s := range status.Stages {
			stages = append(stages, place{s, container})
		}
	}
	slices.SortStableFunc(stages, func(x, y place) int { return x.Began.Compare(y.Began) })
	for _, s := range stages {
		if a.over[s.ID] {
			continue
		}
		before := a.written[s.ID]
		errs = append(errs, a.follow(ctx, s))
		worked = worked || a.over[s.ID] || a.written[s.ID] > before
	}
	return worked, errors.Join(errs...)
}

// follow writes a stage's output from where it was left, until the stage is
// over or the stream breaks.
func (a *attachment) follow(ctx context.Context, s place) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stdin, hold := io.Pipe() // its end would say that we have gone
	defer hold.Close()
	events, eventsIn := io.Pipe()
	ended := make(chan struct{})
	var last podagent.Event
	go func() {
		defer close(ended)
		scanner := bufio.NewScanner(events)
		for scanner.Scan() {
			var e podagent.Event
			if json.Unmarshal(scanner.Bytes(), &e) == nil && (e.Event == podagent.EventExit || e.Event == podagent.EventError) {
				last = e
			}
		}
		_, _ = io.Copy(io.Discard, events)
	}()
	argv := pod.AgentCommand(s.container, a.o.Settings, "output", "--offset", fmt.Sprint(a.written[s.ID]), s.ID)
	output := &counter{w: a.o.Output}
	err := a.client.Exec(ctx, a.pod, s.container, argv, pod.Streams{Stdin: stdin, Stdout: output, Stderr: eventsIn})
	eventsIn.Close()
	<-ended
	a.written[s.ID] += output.bytes()
	// The end of the output may be lost where its record is not: see pod.Client.Ask.
	whole := last.Exit == nil || a.written[s.ID] >= last.Exit.OutputBytes
	a.over[s.ID] = a.over[s.ID] || last.Event != "" && whole
	return err
}
