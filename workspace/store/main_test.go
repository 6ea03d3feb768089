package store

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
)

// childEnv names what this binary does instead of testing, when it was started
// by one of its own tests to be killed.
const childEnv = "TUNNELER_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		os.Exit(runChild(role))
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// openTest opens a store that is closed with the test. NoSync is for speed.
func openTest(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Dir == "" && o.URL == "" {
		o.Dir = t.TempDir()
		o.NoSync = true
	}
	if o.Logger == nil && testing.Verbose() {
		o.Logger = zaptest.NewLogger(t)
	}
	s, err := Open(testContext(t), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

type doc struct {
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Tags  map[string]string `json:"tags,omitempty"`
}

func openDocs(t testing.TB, s *Store, name string) *Bucket[doc] {
	t.Helper()
	b, err := OpenBucket[doc](testContext(t), s, name)
	require.NoError(t, err)
	return b
}

// wait returns when c is ready, or fails the test.
func wait[T any](t testing.TB, c <-chan T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.FailNow(t, "nothing happened")
	}
}
