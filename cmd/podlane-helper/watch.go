package main

import (
	"context"

	"podlane/podagent"
)

func (p *program) status(args []string) error {
	if err := parse(flags("status"), args, 0); err != nil {
		return err
	}
	return podagent.WriteStatus(p.layout, p.stdout)
}

func (p *program) output(args []string) error {
	f := flags("output")
	offset := f.Int64("offset", 0, "")
	if err := parse(f, args, 1); err != nil {
		return err
	}
	return podagent.Watch(context.Background(), p.layout, f.Arg(0), *offset, p.stdin, p.stdout, p.stderr)
}
