package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"podlane/cacheclient/key"
	"podlane/test/bed"
	"podlane/test/faultproxy"
	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

// s3Proxy stands between S3 and everybody else.
func s3Proxy(t *testing.T) *faultproxy.HTTP {
	t.Helper()
	needsStack(t)
	p, err := faultproxy.StartHTTP(t.Context(), net.JoinHostPort(shared.Stack.BridgeIP, "0"), shared.Stack.S3Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// about picks requests for a key's object: of a method, and from pods or not.
func about(key, method string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return strings.Contains(r.URL.Path, "/"+key+".") && r.Method == method
	}
}

// caches of 3 MB each, in folders of their keys' names.
func caches(keys ...string) (list []gitlabsim.Cache, fill string) {
	fill = "dd if=/dev/urandom of=data bs=1000000 count=1 2>/dev/null"
	for _, key := range keys {
		list = append(list, gitlabsim.Cache{Key: key, Paths: []string{key}})
		fill += fmt.Sprintf("; mkdir -p %[1]s/sub; for i in 1 2 3; do cp data %[1]s/sub/$i; done", key)
	}
	return list, fill
}

// whole and gone are tests of a cache's folder that a script makes.
func whole(key string) string {
	return fmt.Sprintf("test $(cat %[1]s/sub/* | wc -c) = 3000000", key)
}
func gone(key string) string { return "test ! -e " + key }

// objectOf finds the object in the bucket whose name starts like that, after all
// folders.
func objectOf(t *testing.T, client *s3.Client, prefix, start string) string {
	t.Helper()
	out, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(stackenv.S3Bucket), Prefix: aws.String(prefix)})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out.Contents {
		if strings.Contains(*o.Key, "/"+start) {
			return *o.Key
		}
	}
	t.Fatalf("there is no object %s", start)
	return ""
}

// spoil changes a key's object behind everybody's back.
func spoil(t *testing.T, prefix, key string, change func([]byte) []byte) {
	t.Helper()
	client := s3Root(t)
	name := objectOf(t, client, prefix, key+".")
	out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(stackenv.S3Bucket), Key: &name})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(out.Body)
	out.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(stackenv.S3Bucket), Key: &name, Body: bytes.NewReader(change(data)), Metadata: out.Metadata,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever is wrong with a cache or with the way to it, the job goes on with all
// of the cache or with nothing of it, and one line says why.
func TestCacheRestoreFaults(t *testing.T) {
	t.Parallel()
	proxy := s3Proxy(t)
	prefix := "t" + randomHex()
	b := cacheBed(t, bed.Settings{"cache": {"endpoint": quoted(proxy.URL()), "prefix": quoted(prefix)}})
	p := project(t, b, nil)
	list, fill := caches("slowdown", "resets", "denied", "truncated", "flipped", "garbage", "vanished", "fine")
	runOn(t, b, gitlabsim.JobSpec{Project: p, Script: []string{fill}, Cache: list}).succeeded(t, "cache fine: saved: 3 files")

	spoil(t, prefix, "truncated", func(b []byte) []byte { return b[:len(b)/2] })
	spoil(t, prefix, "flipped", func(b []byte) []byte { b[len(b)/3] ^= 4; return b })
	spoil(t, prefix, "garbage", func(b []byte) []byte { return bytes.Repeat([]byte("garbage "), len(b)/8) })
	slow := proxy.Add(faultproxy.Fault{
		Match: about("slowdown", http.MethodGet), Times: 3, Status: http.StatusServiceUnavailable,
		Body: "<Error><Code>SlowDown</Code></Error>",
	})
	resets := proxy.Add(faultproxy.Fault{Match: about("resets", http.MethodGet), Times: 3, ResetAnswerAfter: 100_000})
	proxy.Add(faultproxy.Fault{Match: about("denied", http.MethodGet), Status: http.StatusForbidden, Body: "<Error><Code>AccessDenied</Code></Error>"})
	proxy.Add(faultproxy.Fault{Match: about("vanished", http.MethodGet), Status: http.StatusNotFound, Body: "<Error><Code>NoSuchKey</Code></Error>"})
	list[5].FallbackKeys = []string{"fine"} // which has other paths
	o := runOn(t, b, gitlabsim.JobSpec{Project: p, Cache: list, Script: []string{
		whole("slowdown"), whole("resets"), gone("denied"), gone("truncated"), gone("flipped"), gone("garbage"), gone("vanished"), whole("fine"),
		fill,
	}})
	o.succeeded(t, "cache slowdown: hit: 3 files", "cache resets: hit: 3 files", "cache denied: error: denied: ", "cache truncated: error: truncated: ",
		"cache flipped: error: flipped: ", "cache garbage: error: garbage: ", "cache vanished: error: vanished: ", "cache fine: hit: 3 files",
		"SlowDown")
	if slow.Hits() != 3 || resets.Hits() != 3 {
		t.Errorf("%d and %d requests failed, want 3 each: the test proves nothing", slow.Hits(), resets.Hits())
	}
	// What was damaged has been replaced.
	o = runOn(t, b, gitlabsim.JobSpec{Project: p, Cache: list[3:5], Script: []string{whole("truncated"), whole("flipped")}})
	o.succeeded(t, "cache truncated: hit", "cache flipped: hit")
}

func TestCacheSaveFaults(t *testing.T) {
	t.Parallel()
	proxy := s3Proxy(t)
	prefix := "t" + randomHex()
	b := cacheBed(t, bed.Settings{"cache": {"endpoint": quoted(proxy.URL()), "prefix": quoted(prefix)}})
	p := project(t, b, nil)
	list, fill := caches("busy", "torn", "refused", "fine")
	busy := proxy.Add(faultproxy.Fault{Match: about("busy", http.MethodPut), Times: 3, Status: http.StatusServiceUnavailable, Body: "<Error><Code>SlowDown</Code></Error>"})
	torn := proxy.Add(faultproxy.Fault{Match: about("torn", http.MethodPut), Times: 2, ResetUploadAfter: 100_000})
	proxy.Add(faultproxy.Fault{Match: about("refused", http.MethodPut), Status: http.StatusForbidden, Body: "<Error><Code>AccessDenied</Code></Error>"})
	o := runOn(t, b, gitlabsim.JobSpec{Project: p, Script: []string{fill}, Cache: list})
	o.succeeded(t, "cache busy: saved: 3 files", "cache torn: saved: 3 files", "cache refused: error: ", "cache fine: saved: 3 files")
	if busy.Hits() != 3 || torn.Hits() != 2 {
		t.Errorf("%d and %d requests failed, want 3 and 2: the test proves nothing", busy.Hits(), torn.Hits())
	}
	nothingOf(t, b, p, prefix, "refused")
}

// A job that is cancelled while it saves leaves nothing in the bucket.
func TestCacheSaveThatIsCancelled(t *testing.T) {
	t.Parallel()
	proxy := s3Proxy(t)
	prefix := "t" + randomHex()
	b := cacheBed(t, bed.Settings{"cache": {"endpoint": quoted(proxy.URL()), "prefix": quoted(prefix)}})
	p := project(t, b, nil)
	list, fill := caches("c")
	stuck := proxy.Add(faultproxy.Fault{Match: about("c", http.MethodPut), Stall: true})
	job := enqueue(t, b, gitlabsim.JobSpec{Project: p, Script: []string{fill}, Cache: list})
	hit(t, stuck)
	job.ForceCancel()
	if o := finish(t, job); o.State != gitlabsim.Canceled {
		t.Errorf("the job is %s", o.State)
	}
	nothingOf(t, b, p, prefix, "c")
}

// nothingOf checks that a key has neither an object nor an upload under way.
func nothingOf(t *testing.T, b *bed.Bed, p *gitlabsim.Project, prefix, name string) {
	t.Helper()
	space, err := key.NewSpace(prefix, key.Instance(b.GitLab.InstanceID()), p.ID)
	if err != nil {
		t.Fatal(err)
	}
	client, object := s3Root(t), aws.String(space.Object(key.Protected, name, key.PathsOf([]string{name}, false)))
	// MinIO lists the uploads of one object only.
	uploads, err := client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String(stackenv.S3Bucket), Prefix: object})
	if err != nil || len(uploads.Uploads) > 0 {
		t.Errorf("uploads that nobody ended: %v, %v", uploads, err)
	}
	if _, err := client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String(stackenv.S3Bucket), Key: object}); err == nil {
		t.Errorf("there is an object of %s", name)
	}
}

// A cache stage holds a job up for as long as the settings allow, and no longer;
// the checkout is as if there had been no cache.
func TestCacheThatTakesTooLong(t *testing.T) {
	t.Parallel()
	proxy := s3Proxy(t)
	b := cacheBed(t, bed.Settings{"cache": {"endpoint": quoted(proxy.URL()), "timeout": quoted("10s")}})
	p := project(t, b, nil)
	list, fill := caches("stuck")
	runOn(t, b, gitlabsim.JobSpec{Project: p, Script: []string{fill}, Cache: list}).succeeded(t, "cache stuck: saved: 3 files")
	stuck := proxy.Add(faultproxy.Fault{Match: about("stuck", http.MethodGet), Stall: true})
	o := runOn(t, b, gitlabsim.JobSpec{Project: p, Script: []string{gone("stuck")}, Cache: list})
	o.succeeded(t, "cache stuck: error: not done after 10s, which is all the time that a cache stage has; the job goes on without")
	if stuck.Hits() == 0 {
		t.Error("nothing was read: the test proves nothing")
	}
}

// What is wrong with S3 as a whole is said, and fails no job.
func TestCacheWithoutS3(t *testing.T) {
	t.Parallel()
	needsStack(t)
	list, fill := caches("c")
	for name, settings := range map[string]struct{ endpoint, want string }{
		"down":         {"http://" + net.JoinHostPort(shared.Stack.BridgeIP, "1"), "connection refused"},
		"wrong bucket": {"", "there is no bucket podlane-nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over := map[string]string{"bucket": quoted("podlane-nothing")}
			if settings.endpoint != "" {
				over = map[string]string{"endpoint": quoted(settings.endpoint)}
			}
			b := cacheBed(t, bed.Settings{"cache": over})
			o := runOn(t, b, gitlabsim.JobSpec{Script: []string{gone("c"), fill}, Cache: list})
			o.succeeded(t, "cache c: error: ", settings.want, "the job goes on without", "it is not saved")
		})
	}
}

// A disk that is too small for a cache is left as it was.
func TestCacheOnAFullDisk(t *testing.T) {
	t.Parallel()
	b := cacheBed(t, bed.Settings{"[pod_templates]": {
		"name": quoted("small"), "on_request": "true",
		"template": "'''\n" + `{"spec":{"volumes":[{"name":"builds","emptyDir":{"medium":"Memory","sizeLimit":"2500Ki"}}]}}` + "\n'''",
	}})
	p := project(t, b, nil)
	list, fill := caches("large")
	list = append(list, gitlabsim.Cache{Key: "little", Paths: []string{"little"}})
	spec := gitlabsim.JobSpec{Project: p, Cache: list, Script: []string{fill, "echo x > little"}}
	runOn(t, b, spec).succeeded(t, "cache large: saved: 3 files")
	spec.Variables = []gitlabsim.Variable{{Key: "PODLANE_POD_TEMPLATE", Value: "small"}}
	spec.Script = []string{gone("large"), "test -e little", "dd if=/dev/zero of=proof bs=1000000 count=1"}
	o := runOn(t, b, spec)
	o.succeeded(t, "cache large: error: large: ", "no space left on device", "cache little: hit")
}

// helperOf finds the process of the job's cache session on this machine.
func helperOf(t *testing.T, p *gitlabsim.Project) int {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range processes {
			command, err := os.ReadFile(file)
			if err != nil || !strings.HasSuffix(string(command), "podlane-helper\x00cache\x00") {
				continue
			}
			dir := filepath.Dir(file)
			if _, err := os.Stat(filepath.Join(dir, "root/builds", p.Path)); err == nil {
				pid, err := strconv.Atoi(filepath.Base(dir))
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
		}
	}
	t.Fatal("the job has no cache session")
	return 0
}

// Neither the death of the helper nor of its stream costs more than time.
func TestCacheSessionThatBreaks(t *testing.T) {
	t.Parallel()
	needsStack(t)
	api, err := faultproxy.StartTCP(t.Context(), "127.0.0.1:0", strings.TrimPrefix(shared.Stack.APIServerURL(), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, breakIt := range map[string]func(*testing.T, *gitlabsim.Project){
		"killed": func(t *testing.T, p *gitlabsim.Project) {
			if err := syscall.Kill(helperOf(t, p), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		"cut": func(*testing.T, *gitlabsim.Project) { api.Cut() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := s3Proxy(t)
			settings := bed.Settings{"cache": {"endpoint": quoted(proxy.URL())}}
			if name == "cut" {
				settings["kubernetes"] = map[string]string{"kubeconfig": quoted(through(t, shared, api.Address()))}
			}
			b := cacheBed(t, settings)
			p := project(t, b, nil)
			list, fill := caches("c")
			saving := proxy.Add(faultproxy.Fault{Match: about("c", http.MethodPut), Stall: true})
			job := enqueue(t, b, gitlabsim.JobSpec{Project: p, Script: []string{fill}, Cache: list})
			hit(t, saving)
			breakIt(t, p)
			saving.Remove()
			finish(t, job).succeeded(t, "cache c: saved: 3 files")

			restoring := proxy.Add(faultproxy.Fault{Match: about("c", http.MethodGet), Stall: true})
			job = enqueue(t, b, gitlabsim.JobSpec{Project: p, Script: []string{whole("c")}, Cache: list})
			hit(t, restoring)
			breakIt(t, p)
			restoring.Remove()
			finish(t, job).succeeded(t, "cache c: hit: 3 files")
		})
	}
}

// A helper container with little memory takes longer, and no more. If the kernel
// ends the session all the same, the job goes on without.
func TestCacheInLittleMemory(t *testing.T) {
	t.Parallel()
	proxy := s3Proxy(t)
	b := cacheBed(t, bed.Settings{
		"cache": {"endpoint": quoted(proxy.URL())}, "resources.helper": {"memory_limit": quoted("64Mi"), "memory_request": quoted("32Mi")},
	})
	p := project(t, b, nil)
	list := []gitlabsim.Cache{{Key: "c", Paths: []string{"c"}}}
	fill := "mkdir c; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do dd if=/dev/urandom of=c/$i bs=1000000 count=6 2>/dev/null; done"
	spec := gitlabsim.JobSpec{Project: p, Script: []string{fill}, Cache: list}
	runOn(t, b, spec).succeeded(t, "cache c: saved: 12 files, 72 MB")
	spec.Script = []string{"test $(cat c/* | wc -c) = 72000000"}
	runOn(t, b, spec).succeeded(t, "cache c: hit: 12 files, 72 MB")

	restoring := proxy.Add(faultproxy.Fault{Match: about("c", http.MethodGet), Stall: true})
	spec.Script = []string{gone("c")}
	job := enqueue(t, b, spec)
	hit(t, restoring)
	helper := helperOf(t, p)
	exhaust(t, helper)
	if err := syscall.Kill(helper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	restoring.Remove()
	o := finish(t, job)
	o.succeeded(t, "cache c: error: podlane-helper was killed, because the helper container's 64 MiB of memory was not enough; hint: resources.helper.memory_limit; the job goes on without")
}

// exhaust lets memory run out where a process is. The kernel ends the program
// that did it and leaves others alone: it counts, but not who it was.
func exhaust(t *testing.T, pid int) {
	t.Helper()
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		field := strings.SplitN(strings.TrimSpace(line), ":", 3)
		dir := filepath.Join("/sys/fs/cgroup", field[2])
		if field[1] != "" {
			dir = filepath.Join("/sys/fs/cgroup", field[1], field[2])
		}
		if field[1] != "" && field[1] != "memory" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "memory.stat")); err != nil {
			continue
		}
		glutton := exec.CommandContext(t.Context(), "sh", "-c", "echo 1000 > /proc/self/oom_score_adj && echo $$ > "+dir+"/cgroup.procs && exec tail /dev/zero")
		var failed *exec.ExitError
		if out, err := glutton.CombinedOutput(); !errors.As(err, &failed) || failed.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the program that takes all memory ended with %v, want it killed\n%s", err, out)
		}
		return
	}
	t.Fatalf("process %d is in no memory control group: %s", pid, groups)
}

// hit waits until a fault has happened to somebody.
func hit(t *testing.T, fault *faultproxy.Active) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); fault.Hits() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody has come")
		}
	}
}
