package executor

import (
	"context"
	"io"

	"podlane/executor/pod"
)

// shellScript goes to the project's folder, or where the job's folders are, and
// becomes the best shell that the image has.
const shellScript = `cd "$0" 2>/dev/null; set -- */*/.git; [ -d "$1" ] && cd "${1%/.git}"; command -v bash >/dev/null 2>&1 && exec bash; exec sh`

// Shell opens a shell in a job's build container, or runs command there. With a
// terminal it is an interactive one. A command that ends with a code other than
// 0 is a *pod.ExitError.
func (o *Operator) Shell(ctx context.Context, job string, command []string, stdin io.Reader, terminal *pod.Terminal) error {
	client, err := o.connect()
	if err != nil {
		return err
	}
	p, err := client.Find(ctx, job)
	if err != nil {
		return err
	}
	client = client.In(p.Namespace)
	if len(command) == 0 {
		command = []string{"sh", "-c", shellScript, o.Settings.Job.BuildsDir}
	}
	if terminal != nil {
		return client.ExecTerminal(ctx, p.Name, pod.BuildContainer, command, *terminal)
	}
	return client.Exec(ctx, p.Name, pod.BuildContainer, command, pod.Streams{Stdin: stdin, Stdout: o.Output, Stderr: o.Output})
}
