package artifacts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// provenance is what --generate-artifacts-metadata and the flags beside it say:
// who built the artifacts, from what. GitLab's runner adds it to the archive as
// a SLSA statement (artifact_metadata.go).
type provenance struct {
	wanted                                    bool
	runnerID, repoURL, repoDigest             string
	jobName, executorName, runnerName, schema string
	parameters                                stringList
	startedAt, endedAt                        string
}

func (p *provenance) register(set *flag.FlagSet) {
	set.BoolVar(&p.wanted, "generate-artifacts-metadata", false, "add a SLSA provenance statement")
	set.StringVar(&p.runnerID, "runner-id", "", "provenance: the runner's id")
	set.StringVar(&p.repoURL, "repo-url", "", "provenance: the project's address")
	set.StringVar(&p.repoDigest, "repo-digest", "", "provenance: the commit")
	set.StringVar(&p.jobName, "job-name", "", "provenance: the job's name")
	set.StringVar(&p.executorName, "executor-name", "", "provenance: the runner's executor")
	set.StringVar(&p.runnerName, "runner-name", "", "provenance: the runner's name")
	set.Var(&p.parameters, "metadata-parameter", "provenance: name of a variable; may be repeated")
	set.StringVar(&p.startedAt, "started-at", "", "provenance: when the job began, RFC 3339")
	set.StringVar(&p.endedAt, "ended-at", "", "provenance: when the job ended, RFC 3339")
	set.StringVar(&p.schema, "schema-version", "", "accepted; statements are always SLSA v1")
}

// The statement's shape: https://slsa.dev/spec/v1.0/provenance in an in-toto
// statement, field by field as the runner writes it.
type (
	statement struct {
		Type          string      `json:"_type"`
		Subject       []subject   `json:"subject"`
		PredicateType string      `json:"predicateType"`
		Predicate     predication `json:"predicate"`
	}
	subject struct {
		Name   string `json:"name"`
		Digest digest `json:"digest"`
	}
	digest struct {
		SHA256 string `json:"sha256"`
	}
	predication struct {
		BuildDefinition buildDefinition `json:"buildDefinition"`
		RunDetails      runDetails      `json:"runDetails"`
	}
	buildDefinition struct {
		BuildType            string            `json:"buildType"`
		ExternalParameters   map[string]string `json:"externalParameters"`
		InternalParameters   map[string]string `json:"internalParameters"`
		ResolvedDependencies []dependency      `json:"resolvedDependencies"`
	}
	dependency struct {
		URI    string `json:"uri"`
		Digest digest `json:"digest"`
	}
	runDetails struct {
		Builder  builder       `json:"builder"`
		Metadata buildMetadata `json:"metadata"`
	}
	builder struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version"`
	}
	buildMetadata struct {
		InvocationID string    `json:"invocationId"`
		StartedOn    time.Time `json:"startedOn"`
		FinishedOn   time.Time `json:"finishedOn"`
	}
)

// add writes the statement about names into the project directory, where the
// runner puts it, and returns names with it.
func (p *provenance) add(root *os.Root, artifact string, jobID int64, names []string, runnerVersion string) ([]string, error) {
	own := archiveName(artifact, "-metadata.json")
	names = slices.DeleteFunc(names, func(name string) bool { return name == own }) // an earlier job's
	subjects, err := subjectsOf(root, names)
	if err != nil {
		return nil, err
	}
	s, err := p.statement(jobID, subjects, runnerVersion)
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return nil, err
	}
	// What has this name may be a link to a file that is not meant.
	if err := makeWay(root, own); err != nil {
		return nil, err
	}
	if err := root.WriteFile(own, text, 0o644); err != nil {
		return nil, err
	}
	return append(names, own), nil
}

func (p *provenance) statement(jobID int64, subjects []subject, runnerVersion string) (*statement, error) {
	started, err := time.Parse(time.RFC3339, p.startedAt)
	if err != nil {
		return nil, fmt.Errorf("--started-at: %w", err)
	}
	ended, err := time.Parse(time.RFC3339, p.endedAt)
	if err != nil {
		return nil, fmt.Errorf("--ended-at: %w", err)
	}
	if runnerVersion != "" && !strings.HasPrefix(runnerVersion, "v") {
		runnerVersion = "v" + runnerVersion
	}
	id := strconv.FormatInt(jobID, 10)
	external := map[string]string{}
	for _, name := range p.parameters { // names only: a value may be secret
		external[name] = ""
	}
	external["entryPoint"] = p.jobName
	external["source"] = p.repoURL
	return &statement{
		Type:          "https://in-toto.io/Statement/v0.1",
		Subject:       subjects,
		PredicateType: "https://slsa.dev/provenance/v1",
		Predicate: predication{
			BuildDefinition: buildDefinition{
				BuildType:          "https://gitlab.com/gitlab-org/gitlab-runner/-/blob/" + runnerVersion + "/PROVENANCE.md",
				ExternalParameters: external,
				InternalParameters: map[string]string{
					"name":         p.runnerName,
					"executor":     p.executorName,
					"architecture": runtime.GOARCH,
					"job":          id,
				},
				ResolvedDependencies: []dependency{{URI: p.repoURL, Digest: digest{SHA256: p.repoDigest}}},
			},
			RunDetails: runDetails{
				Builder: builder{
					ID:      fmt.Sprintf("%s/-/runners/%s", p.repoURL, p.runnerID),
					Version: map[string]string{"gitlab-runner": runnerVersion},
				},
				Metadata: buildMetadata{InvocationID: id, StartedOn: started.UTC(), FinishedOn: ended.UTC()},
			},
		},
	}, nil
}

// subjectsOf digests the regular files among names.
func subjectsOf(root *os.Root, names []string) ([]subject, error) {
	subjects := []subject{}
	for _, name := range names {
		info, err := root.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		sum, err := sha256Of(root, name)
		if err != nil {
			return nil, err
		}
		subjects = append(subjects, subject{Name: name, Digest: digest{SHA256: sum}})
	}
	return subjects, nil
}

func sha256Of(root *os.Root, name string) (string, error) {
	file, _, err := openRegular(root, name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
