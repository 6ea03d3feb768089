package store

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// What callers tell apart with errors.Is.
var (
	// ErrNotFound: there is no value under the key.
	ErrNotFound = errors.New("not found")
	// ErrExists: Create found a value under the key.
	ErrExists = errors.New("already exists")
	// ErrConflict: the value is not at the expected revision any more.
	ErrConflict = errors.New("changed by somebody else in the meantime")
	// ErrTooLarge: the encoded value exceeds MaxValueSize.
	ErrTooLarge = errors.New("value too large")
	// ErrInvalidName: a key, bucket or log name breaks the rules; the error is an *InvalidNameError.
	ErrInvalidName = errors.New("invalid name")
	// ErrInUse: another process, or another Store of this one, has the directory open; the error is an *InUseError.
	ErrInUse = errors.New("data directory is in use")
	// ErrIncompatible: the data was written in a format that this version does not know; the error is an *IncompatibleError.
	ErrIncompatible = errors.New("incompatible data")
	// ErrCorrupt: something that was stored cannot be read back; the error is a *CorruptError.
	ErrCorrupt = errors.New("corrupt data")
	// ErrWriteFailed: the disk refused a write (full, failing, read-only). The
	// store stays readable, refuses writes and is not ready until it is opened anew.
	ErrWriteFailed = errors.New("the store cannot write to its disk: make room or mend it, then restart")
	// ErrClosed: the store or the cache is closed.
	ErrClosed = errors.New("store is closed")
)

// InUseError says who holds the directory that Open was given.
type InUseError struct {
	Dir string
	PID int // of the process that holds it; 0 if it could not be found out
}

func (e *InUseError) Error() string {
	if e.PID != 0 {
		return fmt.Sprintf("data directory %s is in use by process %d: stop it or choose another directory", e.Dir, e.PID)
	}
	return fmt.Sprintf("data directory %s is in use by another process: stop it or choose another directory", e.Dir)
}

// Is makes errors.Is(err, ErrInUse) hold.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// IncompatibleError says which format was found where, and which one this
// version reads and writes.
type IncompatibleError struct {
	Where string // a directory, or a stream of an external server
	Found string // what is there: a version, or why there is none
	Want  int
}

func (e *IncompatibleError) Error() string {
	return fmt.Sprintf("%s has store format %s, this version works with format %d: use the version that wrote it, or another data directory",
		e.Where, e.Found, e.Want)
}

// Is makes errors.Is(err, ErrIncompatible) hold.
func (e *IncompatibleError) Is(target error) bool { return target == ErrIncompatible }

// CorruptError says what cannot be read.
type CorruptError struct {
	What  string // a stream directory, "bucket/key", or a log with a position
	Cause error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged: %v", e.What, e.Cause)
}

// Is makes errors.Is(err, ErrCorrupt) hold.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Cause }

// InvalidNameError says what is wrong with a key or the name of a bucket or log.
type InvalidNameError struct {
	Kind   string // "key", "bucket" or "log"
	Name   string
	Reason string
}

func (e *InvalidNameError) Error() string {
	return fmt.Sprintf("invalid %s name %.80q: %s", e.Kind, e.Name, e.Reason)
}

// Is makes errors.Is(err, ErrInvalidName) hold.
func (e *InvalidNameError) Is(target error) bool { return target == ErrInvalidName }

// KeyError is an error about one key of one bucket.
type KeyError struct {
	Op     string // "get", "create", "update", "delete" or "mutate"
	Bucket string
	Key    string
	Err    error
}

func (e *KeyError) Error() string {
	return fmt.Sprintf("%s %s/%s: %v", e.Op, e.Bucket, e.Key, e.Err)
}

// Unwrap returns the cause.
func (e *KeyError) Unwrap() error { return e.Err }

// JetStream error codes that the client library has no name for.
const (
	codeStoreFailed             jetstream.ErrorCode = 10077 // the write to the file store failed
	codeWrongLastSeqReplicated  jetstream.ErrorCode = 10164 // as JSErrCodeStreamWrongLastSequence, on a replicated stream
	codeInsufficientResources   jetstream.ErrorCode = 10023
	codeStorageResourceExceeded jetstream.ErrorCode = 10047
)

// permanent reports whether asking again cannot help.
func permanent(err error) bool {
	for _, target := range []error{ErrClosed, ErrCorrupt, ErrIncompatible, ErrInvalidName} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
