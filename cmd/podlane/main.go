// Command podlane is a custom executor for GitLab Runner. See README.md.
package main

import "os"

func main() { os.Exit(run(os.Args, os.Environ(), os.Stdout, os.Stderr)) }
