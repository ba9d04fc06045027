package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"podlane/test/gitlabsim"
	"podlane/test/joblines"
	"podlane/test/stack/stackenv"
)

func TestSuccess(t *testing.T) {
	t.Parallel()
	o := run(t, gitlabsim.JobSpec{Script: []string{"cat README", "echo $MARKER"}})
	o.succeeded(t, "Using Custom executor with driver podlane ", "pod is ready after ", "hello from the checkout", "[MASKED]", "Job succeeded")
	o.doesNotLog(t, marker)
}

func TestExitCode(t *testing.T) {
	t.Parallel()
	o := run(t, gitlabsim.JobSpec{Script: []string{"echo before", "exit 37", "echo behind"}, AfterScript: []string{"echo after, $CI_JOB_STATUS"}})
	o.failed(t, 37, "before", "after, failed", "ERROR: Job failed: exit status 37")
	o.doesNotLog(t, "\nbehind")
	o.doesNotLog(t, "podlane: error")
}

func TestStopsAtTheFirstError(t *testing.T) {
	t.Parallel()
	run(t, gitlabsim.JobSpec{Script: []string{"echo one\nfalse\necho two", "echo three"}}).failed(t, 1, "one\n")
	o := run(t, gitlabsim.JobSpec{Script: []string{"false | cat", "echo behind a pipe"}})
	o.failed(t, 1)
	o.doesNotLog(t, "\nbehind a pipe")
}

func TestReleaseStep(t *testing.T) {
	t.Parallel()
	run(t, gitlabsim.JobSpec{Steps: []gitlabsim.Step{
		{Name: "script", Script: []string{"echo the script"}},
		{Name: "release", Script: []string{"echo the release"}},
	}}).succeeded(t, "the script", "the release")
}

func TestVariables(t *testing.T) {
	t.Parallel()
	odd := "first line\nsecond \"line\" with 'quotes', $DOLLAR, `ticks`, \\back\\slashes, ünï©ödé and a tab\t."
	sum := sha256.Sum256([]byte(odd))
	o := run(t, gitlabsim.JobSpec{
		Variables: []gitlabsim.Variable{
			{Key: "ODD", Value: odd, Raw: true},
			{Key: "A_FILE", Value: "content of\nthe file\n", File: true},
			{Key: "REF", Value: "<$CI_PROJECT_NAME>"},
			{Key: "BIG", Value: strings.Repeat("x", 100_000), Raw: true},
		},
		Script: []string{
			`printf %s "$ODD" | sha256sum`,
			`cat "$A_FILE"`,
			`echo "$REF"`,
			`echo "${#BIG}"`,
			`echo KEPT=across >> /dev/null; echo "in $PWD"`,
		},
	})
	o.succeeded(t, hex.EncodeToString(sum[:]), "content of\nthe file\n", "<p", "\n100000\n", "in /builds/group/p")
}

// Output of any size, lines of any length, bytes of any value, no newline at the
// end: the log is what the script wrote.
func TestOutputIsByteExact(t *testing.T) {
	t.Parallel()
	var both strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&both, "out %d\nerr %d\n", i+1, i+1)
	}
	tests := []struct{ name, script, want string }{
		{"50 MB", "seq 1 6400000", numbers(6_400_000)},
		{"one line of 20 MB", "head -c 20000000 /dev/zero | tr '\\0' x", strings.Repeat("x", 20_000_000)},
		{"no newline at the end", "printf 'no newline'", "no newline"},
		{"both streams", "for i in $(seq 2000); do echo out $i; echo err $i >&2; done", both.String()},
		{"stderr opened anew", "echo one; echo two > /dev/stderr; echo three > /dev/stdout", "one\ntwo\nthree\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := run(t, gitlabsim.JobSpec{Script: []string{"printf '<<<\\n'; " + tt.script + "; printf '>>>\\n'"}})
			o.succeeded(t)
			o.printed(t, tt.want)
		})
	}
}

// numbers is what seq prints.
func numbers(n int) string {
	b := make([]byte, 0, 9*n)
	for i := 1; i <= n; i++ {
		b = append(strconv.AppendInt(b, int64(i), 10), '\n')
	}
	return string(b)
}

// printed checks that a log has exactly what the script has printed between a
// line <<< and >>>.
func (o outcome) printed(t *testing.T, want string) {
	t.Helper()
	_, body, ok := strings.Cut(o.trace, "\n<<<\n")
	end := strings.LastIndex(body, ">>>\n")
	if !ok || end < 0 {
		t.Fatal("no output in the log")
	}
	if err := joblines.Same(body[:end], want, joblines.Own); err != nil {
		t.Errorf("the log is not what the script has printed: %v", err)
	}
}

func TestImages(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		image  gitlabsim.Image
		script []string
		want   []string
	}{
		{"busybox only", gitlabsim.Image{Name: stackenv.ImageJobBusybox}, []string{"cat README", "busybox uname"}, []string{"hello from the checkout", "\nLinux\n"}},
		{"its own user and entrypoint", gitlabsim.Image{Name: stackenv.ImageJobNonroot}, []string{"id -u", "touch mine", "git status --short"}, []string{"\n1000\n", "?? mine"}},
		{"kaniko's layout", gitlabsim.Image{Name: stackenv.ImageJobKaniko, Entrypoint: []string{""}}, []string{"cat README"}, []string{"hello from the checkout"}},
		{"image from a variable", gitlabsim.Image{Name: "$WHICH"}, []string{"echo it runs"}, []string{"\nit runs\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			run(t, gitlabsim.JobSpec{
				Image: tt.image, Script: tt.script, AfterScript: []string{"echo afterwards"},
				Variables: []gitlabsim.Variable{{Key: "WHICH", Value: stackenv.ImageJobBusybox}},
			}).succeeded(t, append(tt.want, "\nafterwards\n")...)
		})
	}
	t.Run("no shell", func(t *testing.T) {
		t.Parallel()
		run(t, gitlabsim.JobSpec{Image: gitlabsim.Image{Name: stackenv.ImageJobNoShell}, Script: []string{"true"}}).
			failed(t, 1, "podlane: error: no shell in image: "+stackenv.ImageJobNoShell+" has neither bash nor sh")
	})
}

func TestTenJobsAtOnce(t *testing.T) {
	p := project(t, shared, nil)
	var jobs []*gitlabsim.Job
	for i := range 10 {
		jobs = append(jobs, enqueue(t, shared, gitlabsim.JobSpec{Project: p, Name: fmt.Sprintf("job %d/10", i+1), Script: []string{fmt.Sprintf("echo I am number %d; sleep 1; exit %d", i, i)}}))
	}
	for i, job := range jobs {
		want := fmt.Sprintf("\nI am number %d\n", i)
		if o := finish(t, job); i == 0 {
			o.succeeded(t, want)
		} else {
			o.failed(t, i, want)
		}
	}
}
