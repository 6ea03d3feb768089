package store

import "strings"

// Limits on names, in bytes.
const (
	MaxKeyLen    = 256
	MaxBucketLen = 64
)

// ValidateKey returns an *InvalidNameError if key cannot name a value. A key is
// one or more tokens joined by dots; a token is letters, digits and any of
// "-_=/"; "_kv" is reserved by the JetStream KV convention as the beginning of a key.
func ValidateKey(key string) error { return validatePath("key", key) }

// validatePath checks what becomes the tail of a NATS subject.
func validatePath(kind, name string) error {
	bad := func(reason string) error { return &InvalidNameError{Kind: kind, Name: name, Reason: reason} }
	switch {
	case name == "":
		return bad("must not be empty")
	case len(name) > MaxKeyLen:
		return bad("must not be longer than 256 bytes")
	case name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, ".."):
		return bad("must not have an empty part before, between or after dots")
	case strings.HasPrefix(name, "_kv"):
		return bad(`must not begin with "_kv"`)
	}
	for i := range len(name) {
		if c := name[i]; !isAlnum(c) && !strings.ContainsRune("-_=/.", rune(c)) {
			return bad(`may contain letters, digits and "-_=/." only`)
		}
	}
	return nil
}

func validateBucket(name string) error {
	bad := func(reason string) error { return &InvalidNameError{Kind: "bucket", Name: name, Reason: reason} }
	switch {
	case name == "":
		return bad("must not be empty")
	case len(name) > MaxBucketLen:
		return bad("must not be longer than 64 bytes")
	}
	for i := range len(name) {
		if c := name[i]; !isAlnum(c) && c != '-' && c != '_' {
			return bad(`may contain letters, digits and "-_" only`)
		}
	}
	return nil
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
