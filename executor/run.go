package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"podlane/executor/gitlab"
	"podlane/executor/pod"
	"podlane/podagent"
)

// Run runs one stage of the job in its pod. scriptPath is the runner's script,
// script its content. A script that ends with a code other than 0 is a
// *BuildFailure with that code.
func (s *Stage) Run(ctx context.Context, stage, scriptPath string, script []byte) error {
	s.noteScript(stage, scriptPath)
	switch gitlab.StageKind(stage) {
	case gitlab.KindRestoreCache:
		return s.restoreCaches(ctx)
	case gitlab.KindArchiveCache:
		return s.saveCaches(ctx, stage != gitlab.StageArchiveOnFailure)
	case gitlab.KindHelper:
		return s.runScript(ctx, pod.HelperContainer, stage, scriptPath, script)
	case gitlab.KindBuild:
		return s.runScript(ctx, pod.BuildContainer, stage, scriptPath, script)
	default:
		return fmt.Errorf("the runner sent the stage %q, which this version of podlane does not know: is podlane older than the runner?", stage)
	}
}

func (s *Stage) runScript(ctx context.Context, container, stage, scriptPath string, script []byte) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	name := pod.Name(s.Job)
	fresh, stop, err := s.equip(ctx, client, container)
	defer fresh.Wait()
	defer stop()
	if err != nil {
		return s.explain(ctx, client, name, err)
	}
	argv := pod.AgentCommand(container, s.Settings, "run")
	var refused refusals
	output, disk := s.Output, &spaceWatch{w: s.Output}
	if container == pod.HelperContainer {
		output = disk
	}
	attendant := s.attend(ctx, client, name, stage)
	defer attendant.Stop()
	follower := podagent.Follower{
		Connect: func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
			ctx, cancel := attendant.While(ctx)
			defer cancel()
			err := client.Exec(ctx, name, container, argv, pod.Streams{Stdin: stdin, Stdout: stdout, Stderr: stderr})
			refused.count(err)
			return err
		},
		Lost: func(ctx context.Context) error {
			if err := attendant.WhyLost(ctx); err != nil {
				return err
			}
			return refused.tooMany(container)
		},
		Output: output,
		Notify: s.Log.Warnf,
		Budget: s.Settings.Kubernetes.RetryBudget.D(),
	}
	record, err := follower.Run(ctx, podagent.Header{
		Stage:        stageID(stage, scriptPath, script),
		GraceSeconds: int(s.Settings.Job.CancelGrace.D().Seconds()),
		AsBuildUser:  container == pod.HelperContainer,
		Cache:        s.cacheSoFar(),
	}, script)
	if err == nil {
		if container == pod.HelperContainer && record.Code != 0 {
			if err := starved(stage, record, disk.line); err != nil {
				return err
			}
		}
		s.reportLimits(container, record)
	}
	switch {
	case errors.Is(err, podagent.ErrCancelled):
		return fmt.Errorf("stage %s was %w", stage, ErrCancelled)
	case err != nil:
		return attendant.Explain(ctx, s.explain(ctx, client, name, err))
	case record.Code != 0:
		attendant.Stop()
		s.reportServices(ctx, client, name, attendant.Told)
		return scriptFailure(record.Code)
	}
	return nil
}

// equip gives the script what the job was granted, and keeps that and podlane's
// own access fresh until stop is called; workers has ended some time after that.
func (s *Stage) equip(ctx context.Context, client *pod.Client, container string) (workers *sync.WaitGroup, stop func(), err error) {
	workers = &sync.WaitGroup{}
	ctx, stop = context.WithCancel(ctx)
	if tokens := s.tokens; tokens != nil {
		workers.Go(func() { tokens.keepFresh(ctx) })
	}
	if container != pod.BuildContainer {
		return workers, stop, nil
	}
	grants, err := s.openGrants(client)
	if err != nil || grants == nil {
		return workers, stop, err
	}
	due, err := grants.deliver(ctx)
	if err != nil {
		return workers, stop, err
	}
	workers.Go(func() { grants.keepFresh(ctx, due) })
	return workers, stop, nil
}

// refusals counts in a row how often podlane-helper itself could not be run, as
// opposed to a stream that broke. A few are forgiven: a node may be in trouble.
type refusals struct {
	inARow int
	last   error
}

const forgivenRefusals = 3

func (r *refusals) count(err error) {
	if !pod.IsExecRefusal(err) {
		r.inARow = 0
		return
	}
	r.inARow++
	r.last = err
}

func (r *refusals) tooMany(container string) error {
	if r.inARow <= forgivenRefusals {
		return nil
	}
	return fmt.Errorf("podlane-helper cannot be run in container %s: %w; hint: are podlane and the helper image of the same version?", container, r.last)
}

// stageID is the same if and only if this is the same run of the stage: the
// runner writes each script into a folder of its own, also when it tries a
// stage again.
func stageID(stage, scriptPath string, script []byte) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\x00", scriptPath)
	sum.Write(script)
	return strings.Map(idRune, stage) + "-" + hex.EncodeToString(sum.Sum(nil)[:6])
}

func idRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
		return r
	}
	return '.'
}

// explain makes a failure of the supervisor the system's, with the pod's own
// reason if that knows more. Only a missing shell is the job author's.
func (s *Stage) explain(ctx context.Context, client *pod.Client, name string, err error) error {
	var stage *podagent.StageError
	if !errors.As(err, &stage) {
		return err
	}
	if stage.Code == podagent.CodeNoShell {
		return jobError(err)
	}
	if lost := client.WhyLost(ctx, name); lost != nil {
		return lost
	}
	return err
}

// starved is the reason for which git or a stage of artifacts has failed, if the
// job's author can't do anything about it; fullDisk is what was said about a disk.
func starved(stage string, record *podagent.ExitRecord, fullDisk string) error {
	f := &pod.Failure{Container: pod.HelperContainer}
	switch {
	case record.OutOfMemory > 0:
		f.Reason, f.Detail = "out of memory", fmt.Sprintf("%s; hint: resources.helper.memory_limit in the settings of podlane", killedForMemory(pod.HelperContainer, record))
	case record.OutOfProcesses:
		f.Reason, f.Detail = "out of processes", outOfProcesses(pod.HelperContainer)
	case fullDisk != "":
		f.Reason, f.Detail = "disk full", fmt.Sprintf("stage %s: %s", stage, fullDisk)
	default:
		return nil
	}
	return f
}

// reportLimits names the usual reason for a program that ended with 137, and for
// one that "can't fork".
func (s *Stage) reportLimits(container string, record *podagent.ExitRecord) {
	if record.OutOfMemory > 0 {
		s.Log.Warnf("%s", killedForMemory(container, record))
	}
	if record.OutOfProcesses {
		s.Log.Warnf("%s; what the script had left running was ended", outOfProcesses(container))
	}
}

func killedForMemory(container string, record *podagent.ExitRecord) string {
	killed := "1 process"
	if record.OutOfMemory > 1 {
		killed = fmt.Sprintf("%d processes", record.OutOfMemory)
	}
	return fmt.Sprintf("the kernel killed %s of the %s container: its memory ran out, limit %s, used at most %s", killed, container, record.MemoryLimit, record.MemoryPeak)
}

func outOfProcesses(container string) string {
	return fmt.Sprintf("the %s container could start no more processes when the script failed: the pod has as many as its node allows", container)
}

// reportServices tells about services that have ended, unless the log has that
// already, since a script that failed may have failed because of them.
func (s *Stage) reportServices(ctx context.Context, client *pod.Client, name string, told func(pod.Service) bool) {
	services, err := pod.Services(s.Job)
	if err != nil || len(services) == 0 {
		return
	}
	p, err := client.Look(ctx, name)
	if err != nil {
		return
	}
	for _, status := range p.Status.ContainerStatuses {
		for _, svc := range services {
			if svc.Container == status.Name && status.State.Terminated != nil && !told(svc) {
				client.ReportService(ctx, p, svc, status.State.Terminated)
			}
		}
	}
}
