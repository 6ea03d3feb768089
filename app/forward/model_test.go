package forward

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	modelMaxConns   = 6
	modelMaxWaiting = 3
	modelTimeout    = 10 * time.Second
)

// model is what an App with one forward should have counted, and the
// connections that should be open or waiting.
type model struct {
	app      *App
	l        *fakeListener
	tunnel   *pipeTunnel
	attached bool
	clients  byte // how many there have been; each sends its number first
	waiting  []waiter
	open     []pair
	want     Stats
}

type waiter struct {
	number byte
	client *pipeConn
	until  time.Time
}

type pair struct{ client, far *pipeConn }

// The counters and the fate of each connection are held against a model while
// tunnels come and go, time passes and either side ends connections, in any
// order.
func TestPropertyEveryConnectionEndsAsItShouldAndIsCountedOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, rt, func(t *rapid.T) {
			m := &model{l: newFakeListener(8080), tunnel: newPipeTunnel()}
			m.want.Failed = make(map[Reason]uint64)
			var err error
			m.app, err = Start(context.Background(), Options{
				Forwards:      []Spec{{Bind: "127.0.0.1", Local: 8080, RemotePort: 1}},
				MaxConns:      modelMaxConns,
				MaxWaiting:    modelMaxWaiting,
				AttachTimeout: modelTimeout,
				listen:        m.l.listen,
			})
			require.NoError(t, err)
			defer m.app.Abort()
			t.Repeat(map[string]func(*rapid.T){
				"":                m.check,
				"attach":          m.attach,
				"detach":          m.detach,
				"connect":         m.connect,
				"time passes":     m.timePasses,
				"client resets":   func(t *rapid.T) { m.reset(t, true) },
				"far side resets": func(t *rapid.T) { m.reset(t, false) },
				"both end well":   m.endWell,
			})
			m.close(t)
		})
	})
}

// inBubble runs one of rapid's checks with fake time. Rapid fails by a panic of
// its own, which has to come out of the bubble as it was.
func inBubble(t *testing.T, rt *rapid.T, check func(t *rapid.T)) {
	var panicked any
	synctest.Test(t, func(*testing.T) {
		defer func() { panicked = recover() }()
		check(rt)
	})
	if panicked != nil {
		panic(panicked)
	}
}

func (m *model) check(t *rapid.T) {
	synctest.Wait()
	m.want.Waiting = uint64(len(m.waiting))
	m.want.Active = uint64(len(m.waiting) + len(m.open))
	require.Equal(t, m.want, m.app.Stats())
	requireBalance(t, m.app.Stats())
}

func (m *model) attach(t *rapid.T) {
	m.cut(t, ReasonTunnelLost) // one that is there is replaced
	m.app.Attach(m.tunnel)
	m.attached = true
	for range m.waiting {
		m.dialled(t)
	}
	m.waiting = nil
}

// dialled takes the next far end and finds its client among those that wait.
func (m *model) dialled(t *rapid.T) {
	far := <-m.tunnel.far
	number := make([]byte, 1)
	_, err := far.Read(number)
	require.NoError(t, err)
	m.want.Sent++
	for _, w := range m.waiting {
		if w.number == number[0] {
			m.open = append(m.open, pair{w.client, far})
			return
		}
	}
	require.Failf(t, "unknown connection", "number %d", number[0])
}

func (m *model) detach(t *rapid.T) {
	m.app.Detach()
	m.attached = false
	m.cut(t, ReasonTunnelLost)
}

// cut expects that every open connection is or will be reset.
func (m *model) cut(t *rapid.T, reason Reason) {
	if reason == ReasonTunnelLost {
		m.app.Detach()
	}
	for _, p := range m.open {
		requireReset(t, p.client)
		requireReset(t, p.far)
		m.want.Failed[reason]++
	}
	m.open = nil
}

func (m *model) connect(t *rapid.T) {
	client := m.l.connect()
	m.want.Accepted++
	m.clients++
	number := m.clients
	if len(m.waiting)+len(m.open) >= modelMaxConns || !m.attached && len(m.waiting) >= modelMaxWaiting {
		requireReset(t, client)
		m.want.Refused++
		return
	}
	go func() { _, _ = client.Write([]byte{number}) }() // nobody reads it before the dial
	m.waiting = append(m.waiting, waiter{number, client, time.Now().Add(modelTimeout)})
	if m.attached {
		m.dialled(t)
		m.waiting = nil
	}
}

func (m *model) timePasses(t *rapid.T) {
	time.Sleep(time.Duration(rapid.IntRange(1, 12).Draw(t, "seconds")) * time.Second)
	still := []waiter{}
	for _, w := range m.waiting {
		if time.Now().Before(w.until) {
			still = append(still, w)
			continue
		}
		requireReset(t, w.client)
		m.want.Failed[ReasonNoTunnel]++
	}
	m.waiting = still
}

func (m *model) reset(t *rapid.T, byClient bool) {
	p := m.takeOpen(t)
	if byClient {
		reset(p.client)
		requireReset(t, p.far)
		m.want.Failed[ReasonLocalReset]++
		return
	}
	reset(p.far)
	requireReset(t, p.client)
	m.want.Failed[ReasonRemoteReset]++
}

func (m *model) endWell(t *rapid.T) {
	p := m.takeOpen(t)
	first, second := p.client, p.far
	if rapid.Bool().Draw(t, "far side first") {
		first, second = second, first
	}
	for _, end := range []struct{ writer, reader *pipeConn }{{first, second}, {second, first}} {
		require.NoError(t, end.writer.CloseWrite())
		_, err := end.reader.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	}
	m.want.Completed++
}

func (m *model) close(t *rapid.T) {
	require.NoError(t, m.app.Close())
	m.cut(t, ReasonClosed)
	for _, w := range m.waiting {
		requireReset(t, w.client)
		m.want.Failed[ReasonClosed]++
	}
	m.waiting = nil
	m.check(t)
}

// takeOpen draws one of the open connections.
func (m *model) takeOpen(t *rapid.T) pair {
	if len(m.open) == 0 {
		t.Skip("none is open")
	}
	i := rapid.IntRange(0, len(m.open)-1).Draw(t, "connection")
	p := m.open[i]
	m.open = append(m.open[:i], m.open[i+1:]...)
	return p
}

func requireReset(t require.TestingT, c *pipeConn) {
	_, err := c.Read(make([]byte, 1))
	require.Equal(t, errReset, err)
}
