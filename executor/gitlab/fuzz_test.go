package gitlab

import (
	"strings"
	"testing"
)

// Whatever stands in a job response, reading it and expanding its variables ends,
// and no value outgrows what an environment can hold. With -fuzzminimizetime 0x:
// Go's fuzzer spends minutes on making inputs smaller whose coverage depends on
// the order of maps, and none on finding new ones.
func FuzzJobResponse(f *testing.F) {
	f.Add(`{"id":1,"job_info":{"project_id":1},"git_info":{"repo_url":"http://h/p.git"},"variables":[{"key":"A","value":"$A${B}$$"},{"key":"B","value":"$A"}]}`)
	f.Add(`{"id":1,"job_info":{"project_id":1},"git_info":{"repo_url":"://%zz"},"variables":[{"key":"","value":"${"},{"key":"$","value":"$"}],"services":[{}]}`)
	f.Add(`{"id":1,"job_info":{"project_id":1},"git_info":{"repo_url":"http://h/p.git"},"variables":[{"key":"A","value":"` + strings.Repeat("$A", 64) + `"}]}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, response string) {
		job, err := ParseJob(strings.NewReader(response))
		if err != nil {
			return
		}
		_, _, _ = job.URL(), job.Instance(), job.Timeout()
		for _, v := range job.Variables.Resolve() {
			if len(v.Value) > maxExpanded {
				t.Errorf("%s has %d bytes", v.Key, len(v.Value))
			}
		}
	})
}
