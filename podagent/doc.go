// Package podagent runs a job's scripts inside its pod so that nothing is lost.
//
// # The two ends
//
// Server is podlane-helper's end, a process for each session; Follower is the
// runner's host's. They speak the protocol in protocol.go over the streams of
// an exec, which may break at any time: the follower connects again and asks
// for the output from the first byte that it lacks.
//
// # A stage's life
//
//  1. A session writes the script to the stage's folder and starts a
//     Supervisor, detached from itself. A lock hands the start from one to the
//     other, so that a stage is started once, whoever is killed when.
//  2. The supervisor runs the script with a pipe for its output, which it
//     copies to a log. Any number of sessions follow that log.
//  3. When the script has ended, the supervisor takes what is in the pipe,
//     leaves an exit record, and lets go of its lock. A lock that is free
//     without a record means that it was killed.
//
// Only a record is proof of success. Init, process 1 of the container, outlives
// all of these and ends the pod when nobody has come for too long.
package podagent
