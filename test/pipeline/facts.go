package pipeline

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"podlane/test/gitlabsim"
)

// Facts are what a plan depends on besides the file.
type Facts struct {
	// Variables that GitLab knows before any job runs; later ones win. They win
	// over those in the file.
	Variables []gitlabsim.Variable
	// MergeRequest and Tag tell the pipeline's kind; neither: a branch's.
	MergeRequest, Tag bool
	// Changes are the files that differ, for rules with changes. Nil: unknown,
	// and every such rule holds, as in GitLab's first pipeline of a branch.
	Changes []string
	// Blobs are the blob ids of the commit's files by path, for cache keys.
	Blobs map[string]string
}

// FactsOf reads the facts of a simulated pipeline.
func FactsOf(ctx context.Context, p *gitlabsim.Pipeline) (Facts, error) {
	blobs, err := p.Project.Blobs(ctx, p.SHA)
	if err != nil {
		return Facts{}, fmt.Errorf("read the pipeline's commit: %w", err)
	}
	return Facts{
		Variables: p.PredefinedVariables(), MergeRequest: p.MergeRequest != nil, Tag: p.Tag, Blobs: blobs,
	}, nil
}

// scope looks variables up, those of the file first and then the facts'.
func (f Facts) scope(file []gitlabsim.Variable) lookup {
	values := map[string]string{}
	for _, v := range file {
		values[v.Key] = v.Value
	}
	for _, v := range f.Variables {
		values[v.Key] = v.Value
	}
	return func(name string) *string {
		if value, ok := values[name]; ok {
			return &value
		}
		return nil
	}
}

var reference = regexp.MustCompile(`\$(?:(\w+)|\{(\w+)\})`)

// maxExpansions bounds variables that refer to each other.
const maxExpansions = 10

// expand replaces variables in text, also those in their values. What isn't
// defined stays as it is, for the runner to expand.
func expand(text string, variables lookup) string {
	for range maxExpansions {
		next := reference.ReplaceAllStringFunc(text, func(ref string) string {
			if value := variables(strings.Trim(ref, "${}")); value != nil {
				return *value
			}
			return ref
		})
		if next == text {
			break
		}
		text = next
	}
	return text
}
