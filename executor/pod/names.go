package pod

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"podlane/executor/gitlab"
)

// Labels and annotations of everything we create. Labels are for finding,
// annotations for people.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "podlane"

	LabelInstance = "podlane/instance"
	LabelProject  = "podlane/project"
	LabelPipeline = "podlane/pipeline"
	LabelJob      = "podlane/job"
	LabelRunner   = "podlane/runner"
	// LabelAttempt tells the runner's attempts at preparing one job apart.
	LabelAttempt = "podlane/attempt"

	AnnotationJobName = "podlane/job-name"
	AnnotationJobURL  = "podlane/job-url"
	AnnotationProject = "podlane/project-path"
	AnnotationRef     = "podlane/ref"
	AnnotationSha     = "podlane/sha"
	AnnotationTimeout = "podlane/timeout"
)

// Name is the name of the job's pod and the prefix of its secrets. It is made
// from trusted facts alone and is the same in every stage and attempt, so that
// the API server itself refuses a second pod for one job.
func Name(job *gitlab.Job) string {
	identity := fmt.Sprintf("%s\x00%d\x00%d", job.Instance(), job.JobInfo.ProjectID, job.ID)
	return fmt.Sprintf("podlane-p%d-j%d-%s", job.JobInfo.ProjectID, job.ID, shortHash(identity))
}

// SecretNames are the names that a job's secrets have if it has them: they can
// be deleted without knowing what was created.
func SecretNames(job *gitlab.Job) []string {
	name := Name(job)
	names := []string{name + "-pull"}
	for i := range job.Services {
		names = append(names, name+"-"+serviceContainerName(i))
	}
	return names
}

func serviceContainerName(i int) string { return "svc-" + strconv.Itoa(i) }

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}

func labels(job *gitlab.Job, attempt string) map[string]string {
	return map[string]string{
		LabelManagedBy: ManagedBy,
		LabelInstance:  shortHash(job.Instance()),
		LabelProject:   strconv.FormatInt(job.JobInfo.ProjectID, 10),
		LabelPipeline:  strconv.FormatInt(job.JobInfo.PipelineID, 10),
		LabelJob:       strconv.FormatInt(job.ID, 10),
		LabelRunner:    labelValue(job.RunnerInfo.UUID),
		LabelAttempt:   labelValue(attempt),
	}
}

// labelValue returns s where it can be a label's value, else a hash of it.
func labelValue(s string) string {
	ok := len(s) <= 63
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.' {
			ok = false
		}
	}
	if ok && s == strings.Trim(s, "-_.") {
		return s
	}
	return shortHash(s)
}
