// Command podlane-helper works inside a job's pod: it keeps the containers
// alive, runs the job's scripts and remembers how they ended. podlane calls it;
// people need it only to look around.
package main

import "os"

func main() { os.Exit(run(os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr)) }
