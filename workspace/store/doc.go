// Package store is the durable state of the control plane: small JSON documents
// in buckets with compare-and-set, and line-oriented logs, both on NATS
// JetStream. By default the JetStream server runs inside this process, listens
// on nothing and keeps its files in one directory that belongs to one process
// at a time; Options.URL names an external one instead.
//
// What is acknowledged stays: a call that returned nil can be read back after
// the process was killed, and, unless Options.NoSync is set, after the machine
// lost power. A call that returned an error other than one of this package's
// own (ErrNotFound, ErrExists, ErrConflict, an InvalidKeyError and so on) may
// or may not have happened; compare-and-set and LogRecord.Origin make it safe
// to ask again.
//
// Buckets have a history of one: Bucket is the truth, Cache is a local mirror of
// it that any number of readers and subscribers share at the price of a single
// watch. All logs share one stream and differ by subject, because a stream costs
// some 300 KiB of memory, three goroutines, a directory and several
// synchronous file writes, and a subject costs an index entry (see
// BenchmarkStreamPerLog and BenchmarkSubjectPerLog).
//
// The package knows nothing of workspaces, builds, agents or HTTP: names of
// buckets and logs and what is in them are the caller's. It must not import
// any other package of this module.
package store
