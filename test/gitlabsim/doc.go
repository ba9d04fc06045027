// Package gitlabsim stands in for a GitLab instance: an HTTP server with the
// runner API, job logs, artifacts, git over smart HTTP and an OpenID Connect
// issuer, and a Go API to put jobs in its queue and to see what became of them.
//
// A runner can't tell it from the real thing as long as it stays with what
// gitlab-runner's network package uses (gitlab-runner network/gitlab.go). What
// Rails does on its side of that API is in GitLab's lib/api/ci/runner.rb,
// app/services/ci/ and app/presenters/ci/build_runner_presenter.rb; comments
// below name the file that decides.
//
// A test usually does
//
//	srv, err := gitlabsim.Start(ctx, gitlabsim.Options{Addr: "127.0.0.1:0"})
//	defer srv.Close()
//	project, err := srv.AddProject(ctx, gitlabsim.ProjectSpec{Path: "group/app"})
//	_, err = project.Commit(ctx, map[string]string{"README": "hello\n"})
//	job, err := srv.Enqueue(ctx, gitlabsim.JobSpec{Project: project, Script: []string{"cat README"}})
//	// a runner with srv.URL() and srv.RunnerToken() takes it
//	result, err := job.Wait(ctx)
package gitlabsim
