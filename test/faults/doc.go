// Package faults breaks the test bed while jobs run on it, one fault a test,
// and records what became of each: docs/reliability.md shows the table.
//
// Tests wait for what they need, at barriers in the jobs' scripts and in a proxy
// before the API server, and for no time. With -short those run that take less
// than a minute; one that takes down a part that all jobs use runs before the
// others, which run side by side.
package faults
