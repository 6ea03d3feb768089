package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
)

// Options say where the state is. Either Dir or URL is needed.
type Options struct {
	// Dir is the data directory of the embedded server. It is created with mode
	// 0700 if need be, and belongs to one Store at a time.
	Dir string

	// URL of an external NATS server with JetStream, or several separated by
	// commas; Dir is not used then. Several processes may share one.
	URL string
	// CredentialsFile of the account on the external server; "" for none.
	CredentialsFile string

	// NoSync leaves it to the operating system when to write to the disk. What
	// is acknowledged then survives a kill of this process, but not a loss of
	// power. A write takes a tenth of the time.
	NoSync bool

	// LogBytes bounds the disk space of all logs together; the oldest lines of
	// all are dropped first. 0 means 1 GiB; at most 64 GiB.
	LogBytes int64
	// LogBytesPerLog bounds the text of one log; its oldest lines are dropped
	// first. 0 means 16 MiB.
	LogBytesPerLog int64

	// Logger gets what the embedded server says and what goes wrong behind the
	// callers' backs. nil means none.
	Logger *zap.Logger
}

// Defaults and limits of Options, in bytes.
const (
	defaultLogBytes       = 1 << 30
	maxLogBytes           = 64 << 30
	defaultLogBytesPerLog = 16 << 20
)

func (o *Options) setDefaults() error {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.LogBytes == 0 {
		o.LogBytes = defaultLogBytes
	}
	if o.LogBytesPerLog == 0 {
		o.LogBytesPerLog = defaultLogBytesPerLog
	}
	if o.LogBytes < maxPayload || o.LogBytes > maxLogBytes || o.LogBytesPerLog < 0 {
		return errors.New("log limits out of range: LogBytes is 1 MiB to 64 GiB, LogBytesPerLog not negative")
	}
	return nil
}

const (
	// callTimeout bounds one round trip to JetStream. It is for a server that
	// does not answer, not for a slow one.
	callTimeout = 10 * time.Second
	// reconnectWait is the pause between attempts to reach an external server again.
	reconnectWait = 250 * time.Millisecond
	// checkEvery is how often a cache makes sure that its watch is alive, and a
	// Follow that it has missed nothing. Both are told; this is for the case
	// that telling fails in a way that nobody thought of.
	checkEvery = 30 * time.Second
	// concurrentFetches bounds what is on its way to this client at once, so
	// that the server never takes it for a slow consumer and hangs up.
	concurrentFetches = 8
)

// Store is an open store. It is safe for concurrent use.
type Store struct {
	opts       Options
	log        *zap.Logger
	checkEvery time.Duration
	dir        *dataDir       // nil with an external server
	server     *server.Server // nil with an external server
	complaints *natsLog       // of server
	nc         *nats.Conn
	js         jetstream.JetStream
	logs       jetstream.Stream

	fetches  chan struct{}         // semaphore
	appended *wakes                // by log name: there is a new record
	resumed  *wakes                // the connection was lost and is back
	failed   atomic.Pointer[error] // the first write that the disk refused

	ctx        context.Context // ends when Close begins
	cancel     context.CancelFunc
	connected  atomic.Pointer[context.Context] // ends when the connection is lost
	disconnect atomic.Pointer[context.CancelFunc]

	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup // caches' feeders

	closeOnce sync.Once
	closeErr  error
}

// Open opens the store, starting the embedded server unless Options.URL is set.
// It fails with ErrInUse if somebody else has the directory, ErrIncompatible if
// another version wrote it, ErrCorrupt if what is there cannot be loaded; in
// these cases nothing was touched but the lock. ctx bounds the opening only.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("cannot open store: %w", err)
	}
	s := &Store{
		opts:       o,
		log:        o.Logger,
		checkEvery: checkEvery,
		fetches:    make(chan struct{}, concurrentFetches),
		appended:   newWakes(),
		resumed:    newWakes(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.newConnection()
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot open store: %w", errors.Join(err, s.Close()))
		}
	}()

	if o.URL == "" {
		if err := s.startEmbedded(ctx); err != nil {
			return nil, err
		}
	} else if err := s.connect(o.URL); err != nil {
		return nil, err
	}
	if err := s.openLogs(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) startEmbedded(ctx context.Context) error {
	dir, err := openDir(s.opts.Dir)
	if err != nil {
		return err
	}
	s.dir = dir
	srv, complaints, err := startServer(ctx, dir.path, s.opts.NoSync, s.log)
	if err != nil {
		return err
	}
	s.server, s.complaints = srv, complaints
	if err := s.connect("", nats.InProcessServer(srv)); err != nil {
		return err
	}
	loaded := make(map[string]bool)
	names := s.js.StreamNames(ctx)
	for name := range names.Name() {
		loaded[name] = true
	}
	if err := names.Err(); err != nil {
		return fmt.Errorf("cannot list what is stored: %w", err)
	}
	if err := checkStreamsLoaded(dir.path, loaded, complaints.reason(keptComplaints)); err != nil {
		return err
	}
	complaints.started()
	return nil
}

// connect makes the connection, embedded or external, and what rides on it.
func (s *Store) connect(url string, opts ...nats.Option) error {
	opts = append(opts,
		nats.Name("tunneler store"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectWait, reconnectWait),
		nats.ReconnectHandler(func(*nats.Conn) {
			s.log.Info("store connection is back")
			s.resumed.wakeAll()
			s.appended.wakeAll()
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			s.newConnection()
			if err != nil {
				s.log.Warn("store connection lost", zap.Error(err))
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Warn("store connection", zap.Error(err))
		}),
	)
	if s.opts.CredentialsFile != "" {
		opts = append(opts, nats.UserCredentials(s.opts.CredentialsFile))
	}
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	s.nc = nc
	s.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(callTimeout), jetstream.WithPublishAsyncTimeout(2*callTimeout))
	if err != nil {
		return fmt.Errorf("cannot use JetStream: %w", err)
	}
	return nil
}

// Ready returns nil if the store answers and is able to write: it asks JetStream.
func (s *Store) Ready(ctx context.Context) error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	if _, err := s.info(ctx, s.logs); err != nil {
		return fmt.Errorf("store is not ready: %w", err)
	}
	return nil
}

// Close ends every Cache, Follow and pending call, stops the embedded server,
// and returns when that has ended and the directory is free. It is safe to call twice.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.cancel()
		if s.nc != nil {
			// First, so that nobody waits for an answer that may not come.
			gone := make(chan struct{})
			s.nc.SetClosedHandler(func(*nats.Conn) { close(gone) })
			s.nc.Close()
			<-gone
		}
		s.wg.Wait()
		if s.server != nil {
			stopServer(s.server)
		}
		if s.dir != nil {
			s.closeErr = s.dir.close(s.server != nil && s.failed.Load() == nil)
		}
	})
	return s.closeErr
}

// start runs f on a goroutine that Close waits for; f ends when s.ctx does.
func (s *Store) start(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.wg.Go(f)
	return nil
}

var (
	errNoAnswer       = fmt.Errorf("the server did not answer within %v: %w", callTimeout, context.DeadlineExceeded)
	errConnectionLost = errors.New("the connection to the server was lost")
)

// bounded is for one round trip: it ends ctx after callTimeout, and when the
// connection is lost or the store closes, because then no answer will come.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, callTimeout, errNoAnswer)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(*s.connected.Load(), func() { cancel(errConnectionLost) })
	return ctx, func() {
		stop()
		cancel(nil)
		cancelTimeout()
	}
}

// newConnection begins the time for which a connection is there, and ends the one before.
func (s *Store) newConnection() {
	ctx, cancel := context.WithCancel(s.ctx)
	s.connected.Store(&ctx)
	if old := s.disconnect.Swap(&cancel); old != nil {
		(*old)()
	}
}
