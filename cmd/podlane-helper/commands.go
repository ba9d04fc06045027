package main

import (
	"fmt"
	"strings"
)

// exitUsage is the exit code for a command line that makes no sense.
const exitUsage = 2

// command is a sub-command: what people read about it, and what it does.
type command struct {
	name  string
	args  string
	short string
	about string
	run   func(*program, []string) error
}

func commands() []command {
	return []command{
		{"init", "[--role ROLE] [--install DIR] [--idle TIME] [--keep-env]", "process 1 of the build and the helper container", `
Keeps the container alive and reaps what its scripts leave behind. The role is
build (the default) or helper. The build
container's tells the helper's its user and group; the helper's copies
podlane-helper into a folder (--install) and makes gitlab-runner resolvable.
With --keep-env scripts get its own environment, which an entrypoint has made.

Reads   /podlane/shared/alive, which every session of a stage touches.
Writes  /podlane/shared/build-user or /podlane/shared/helper-ready; one line on
        stderr if it fails.
Exits   0 after SIGTERM, once no stage runs and none is being followed;
        1 if no session has been there for the idle time (default 15m), or if
        it could not do its work.
`, (*program).init},
		{"install", "DIR", "copy podlane-helper into a folder", `
Reads   its own program file.
Writes  DIR/podlane-helper, which appears there whole.
Exits   0, or 1 with the reason on stderr.
`, (*program).install},
		{"run", "", "one session for one stage of a job", `
Starts the stage, or attaches to it if it has been started, and follows it. The
stage goes on when the session ends.

Reads   stdin: a header line, the script, then control lines ("ping",
        "cancel"). Its end means that the client has gone.
Writes  stdout: the script's output from the header's offset, nothing else.
        stderr: events as JSON lines; "exit" or "error" is the last one.
Exits   0, whatever the script did: the exit event alone tells.
`, (*program).session},
		{"supervise", "[--grace SECONDS] [--as-build-user] DIR", "run a stage's script; only run calls it", `
Reads   the script in DIR, a folder in /podlane/state/stages. File descriptor 3
        is the pipe and 4 the lock that run passes on. SIGTERM cancels: the
        script gets SIGTERM, and SIGKILL after the grace period.
Writes  the script's output, and how it ended, to files in DIR.
Exits   0 when the script and all that still held its output have ended; 1 if
        there will be no exit record.
`, (*program).supervise},
		{"cache", "", "one session that moves caches between the pod and S3", `
Becomes the build container's user if it is root, so that what it creates
belongs to whoever works with it. A session that is still there is killed, and
what it had restored in part is taken back first.

Reads   stdin: a header line, then orders and answers as JSON lines. Its end
        ends the session. The project's files.
Writes  stdout: JSON lines: what it asks for, and how each order ended. The
        project's files; /podlane/state/cache while a restore is under way.
Exits   0 when the session ended in order: nothing was left half done. Else 1.
`, (*program).cache},
		{"ready", "[--service NAME=PORT[,PORT]]... [--timeout DURATION]", "wait until the pod and its services answer", `
Reads   /podlane/shared; connects to the services' ports on 127.0.0.1.
Writes  stdout: JSON lines, "service" for each port that answers, then "ready";
        "timeout" for a port that does not in time; "not-ready" if one of
        podlane's own containers is not up.
Exits   0 if all is ready, 1 if not within the timeout (default 30s).
`, (*program).ready},
		{"grant", "", "take over credentials that a job was granted", `
Reads   stdin: JSON with "files", by path, and "env".
Writes  /podlane/grants, which is memory: the files, and the variables for the
        scripts that run starts from now on.
Exits   0, or 1 with the reason on stderr.
`, (*program).grant},
		{"aws-credentials", "GRANT", "the answer to a credential_process of the AWS SDKs", `
Reads   what was granted last under that name.
Writes  stdout: access key, secret key, session token and expiration as JSON.
Exits   0, or 1 with the reason on stderr.
`, (*program).awsCredentials},
		{"status", "", "say what runs and has run in this container", `
For whoever looks on from aside: it is no sign of life.

Reads   /podlane/state/stages.
Writes  stdout: one JSON object with the stages, their outputs' lengths, and
        how they ended.
Exits   0, or 1 with the reason on stderr.
`, (*program).status},
		{"output", "[--offset BYTES] STAGE", "write a stage's output, also while it grows", `
For whoever looks on from aside. STAGE is an id that status shows.

Reads   stdin: its end means that nobody reads any more.
Writes  stdout: the output from the offset. stderr: the event "exit" or "error"
        when the stage is over.
Exits   0, or 1 with the reason on stderr.
`, (*program).output},
		{"gitlab-runner-check", "", "make gitlab-runner resolvable for scripts", `
init does this in the helper container. Where PATH has no gitlab-runner, a link
of that name in /podlane/state/bin, which ends the PATH of scripts, leads to
gitlab-runner-helper or else to podlane-helper itself.

Reads   PATH.
Writes  the link; the program that it leads to on stdout.
Exits   0, or 1 with the reason on stderr.
`, (*program).runnerCheck},
		{"version", "", "print the version", `
Writes  the version on stdout.
Exits   0.
`, (*program).version},
	}
}

func find(name string) (command, bool) {
	for _, c := range commands() {
		if c.name == name {
			return c, true
		}
	}
	return command{}, false
}

func (c command) help() string {
	return strings.TrimSpace(fmt.Sprintf("podlane-helper %s %s", c.name, c.args)) + "\n" + c.about
}

func overview() string {
	var b strings.Builder
	b.WriteString("podlane-helper works inside a job's pod; podlane calls it.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-20s %s\n", c.name, c.short)
	}
	b.WriteString("\n\"podlane-helper COMMAND --help\" says what a command reads, writes and exits\nwith. Called as gitlab-runner it answers to the commands that the runner's\nscripts use for artifacts. Exit code 2 is for a wrong command line.\n")
	return b.String()
}
