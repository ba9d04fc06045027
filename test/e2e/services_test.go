package e2e

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"podlane/test/gitlabsim"
	"podlane/test/stack/stackenv"
)

func variable(key, value string) gitlabsim.Variable {
	return gitlabsim.Variable{Key: key, Value: value, Public: true}
}

func service(alias string, vars ...gitlabsim.Variable) gitlabsim.Image {
	return gitlabsim.Image{Name: stackenv.ImageService, Alias: alias, Variables: vars}
}

// ask sends a line to a service and prints what comes back: in bash alone.
const ask = `ask() { exec 3<>/dev/tcp/$1/$2; echo "$3" >&3; head -n 1 <&3; exec 3>&-; }; `

func TestTwoServices(t *testing.T) {
	t.Parallel()
	run(t, gitlabsim.JobSpec{
		Variables: []gitlabsim.Variable{variable("CI_DEBUG_SERVICES", "true")},
		Services: []gitlabsim.Image{
			service("db,database", variable("PORT", "5432"), variable("DELAY_MS", "1500"), variable("HEALTHCHECK_TCP_PORT", "5432")),
			service("redis", variable("PORT", "6379"), variable("HEALTHCHECK_TCP_PORT", "6379")),
		},
		Script: []string{
			ask + "ask db 5432 first",
			ask + "ask database 5432 second",
			ask + "ask redis 6379 third",
			ask + "ask localhost-podlane-service 6379 fourth",
		},
	}).succeeded(t, "service db answers on port 5432", "service redis answers on port 6379", "first\n", "second\n", "third\n", "fourth\n",
		"[service:db] service: starting", "[service:redis] service: starting")
}

// A service gets the job's public variables and its own, through a secret.
func TestServiceVariables(t *testing.T) {
	t.Parallel()
	o := run(t, gitlabsim.JobSpec{
		Services:  []gitlabsim.Image{service("svc", variable("PORT", "8080"), variable("HEALTHCHECK_TCP_PORT", "8080"), gitlabsim.Variable{Key: "OWN_SECRET", Value: "$MARKER"})},
		Variables: []gitlabsim.Variable{variable("FROM_THE_JOB", "x")},
		Script:    []string{`exec 3<>/dev/tcp/svc/8080; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3`},
	})
	o.succeeded(t, "\nFROM_THE_JOB\n", "\nOWN_SECRET\n", "\nCI_JOB_ID\n")
	o.doesNotLog(t, "\nMARKER\n")
}

func TestServiceThatDiesEarly(t *testing.T) {
	t.Parallel()
	t.Run("with a health check", func(t *testing.T) {
		t.Parallel()
		run(t, gitlabsim.JobSpec{
			Services: []gitlabsim.Image{service("db", variable("PORT", "5432"), variable("DELAY_MS", "60000"), variable("EXIT_AFTER_MS", "500"), variable("EXIT_CODE", "3"), variable("HEALTHCHECK_TCP_PORT", "5432"))},
			Script:   []string{"echo never"},
		}).failed(t, 1, "warning: service db ended with exit code 3; its last lines:", "  service: starting", "podlane: error: service failed: db ended with exit code 3 before it answered on port 5432")
	})
	t.Run("without one, while the script runs", func(t *testing.T) {
		t.Parallel()
		barrier := shared.Barrier()
		job := enqueue(t, shared, gitlabsim.JobSpec{
			Services: []gitlabsim.Image{service("db", variable("EXIT_AFTER_MS", "1500"), variable("EXIT_CODE", "5"))},
			Script:   []string{barrier.Command, "exit 8"},
		})
		await(t, "the service's end in the pod's status", func() bool {
			pods, err := shared.Kube.Pods(t.Context(), job.URL())
			return err == nil && len(pods) == 1 && slices.ContainsFunc(pods[0].Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.State.Terminated != nil })
		})
		barrier.Open()
		finish(t, job).failed(t, 8, "warning: service db ended with exit code 5; its last lines:", "  service: starting")
	})
}

func TestServiceThatNeverAnswers(t *testing.T) {
	t.Parallel()
	b := newBed(t, map[string]map[string]string{"job": {"service_timeout": `"2s"`}})
	runOn(t, b, gitlabsim.JobSpec{
		Services: []gitlabsim.Image{service("db", variable("PORT", "5432"), variable("HEALTHCHECK_TCP_PORT", "9999"))},
		Script:   []string{"echo never"},
	}).failed(t, 1, "podlane: error: service failed: db did not answer on port 9999 within 2s")
}

func TestServiceWithAnEntrypointThatIsNotThere(t *testing.T) {
	t.Parallel()
	run(t, gitlabsim.JobSpec{
		Services: []gitlabsim.Image{{Name: stackenv.ImageService, Entrypoint: []string{"/no/such/program"}, Variables: []gitlabsim.Variable{variable("HEALTHCHECK_TCP_PORT", "1")}}},
		Script:   []string{"echo never"},
	}).failed(t, 1, "podlane: error: invalid service: "+stackenv.ImageService, "/no/such/program")
}
