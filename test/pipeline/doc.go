// Package pipeline runs a whole .gitlab-ci.yml against a simulated GitLab.
//
// Parse reads the file, strictly: a keyword it doesn't know is an error with its
// line. New makes a plan of it for one pipeline's facts, a pure function: which
// jobs take part, after which others, with what payload. Run gives the jobs to
// the simulator as soon as those they wait for have ended.
//
// It knows the keywords that the examples and tests use and treats them as
// GitLab does: https://docs.gitlab.com/ci/yaml/.
package pipeline
