package tailnet

import (
	"crypto"
	"crypto/tls"
)

// IdentityOf makes an identity of another kind of key, to compare.
func IdentityOf(key crypto.Signer) (*Identity, error) { return identityOf(key) }

// Certificate gives the identity to a plain TLS endpoint.
func (id *Identity) Certificate() tls.Certificate { return id.cert }

// ClientTLS is what a tunneler dials with.
func ClientTLS(dial DialConfig) *tls.Config {
	return clientTLS(dial.SessionID, dial.Identity, dial.PeerKeyHash)
}

// QUICConfig is the transport's configuration.
var QUICConfig = quicConfig

// UseUnproven uses up what a listener grants to unproven source addresses.
func (l *Listener) UseUnproven() { l.unproven.SetBurst(0) }

// The limits that tests run into.
const (
	FlowQueue      = flowQueue
	EarlyDatagrams = earlyDatagrams
	HeaderTimeout  = headerTimeout
	IdleTimeout    = idleTimeout
	Linger         = linger
	StreamSlack    = streamSlack
	RaceStagger    = raceStagger
)

// ServerTLS is what an agent serves one session with.
func ServerTLS(id *Identity, peer KeyHash) *tls.Config {
	return serverTLS(id, peer, nil)
}

// GSO reports whether the connection's socket has segmentation offload.
func (c *Conn) GSO() bool { return c.q.ConnectionState().GSO }
