// Package faults breaks the test bed while jobs run on it, one fault a test,
// and records what became of each: docs/reliability.md shows the table. The
// tests take down parts that others use, so they run one after the other, on a
// test bed that nobody else needs: make test-faults.
package faults
