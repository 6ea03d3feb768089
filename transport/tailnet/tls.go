package tailnet

import (
	"crypto/tls"
	"fmt"
)

// ALPN is the application protocol of a tailnet connection (RFC 7301).
const ALPN = "tunneler/1"

// The TLS alerts that tell the peer why it was refused (RFC 8446, section 6.2).
// A QUIC endpoint sends them as the transport error 0x100 + alert (RFC 9001,
// section 4.8).
const (
	alertBadCertificate   tls.AlertError = 42
	alertUnrecognizedName tls.AlertError = 112
)

// PeerKeyError says that the peer proved another key than the one that was
// pinned. Trying again cannot mend it.
type PeerKeyError struct {
	// Want is the pinned hash, Got the hash of the key that the peer showed.
	Want, Got KeyHash
}

// Error names both hashes.
func (e *PeerKeyError) Error() string {
	if e.Got.IsZero() {
		return fmt.Sprintf("the peer showed no key, expected the one with hash %s", e.Want)
	}
	return fmt.Sprintf("the peer has the key with hash %s, expected %s", e.Got, e.Want)
}

// Unwrap gives the TLS alert under which the refusal is sent.
func (e *PeerKeyError) Unwrap() error { return alertBadCertificate }

// pinned verifies that the peer's key is the one with the hash want. TLS
// itself proves that the peer holds the key (CertificateVerify, RFC 8446,
// section 4.4.3); nothing else of the certificate means anything here.
func pinned(want KeyHash, refused func(*PeerKeyError)) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		err := &PeerKeyError{Want: want}
		if len(state.PeerCertificates) > 0 {
			err.Got = hashOf(state.PeerCertificates[0])
		}
		if err.Got == want && !want.IsZero() {
			return nil
		}
		if refused != nil {
			refused(err)
		}
		return err
	}
}

// baseTLS is what both sides have in common. Key exchange is left at Go's
// default, which includes a post-quantum hybrid: a relay could record a
// session today and break it later, and half a millisecond a session is a
// fair price against that.
func baseTLS(id *Identity) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		NextProtos:   []string{ALPN},
		Certificates: []tls.Certificate{id.cert},
		// A resumed session would skip the certificates, which are all that
		// tells who the peer is, and 0-RTT data can be replayed by anyone who
		// saw it. Keys live for one session, so there is nothing to gain.
		SessionTicketsDisabled: true,
	}
}

// clientTLS dials the session, whose id is the server name: it selects the
// agent's identity. It is sent in the clear, so it must not be a secret.
func clientTLS(session string, id *Identity, peer KeyHash) *tls.Config {
	conf := baseTLS(id)
	conf.ServerName = session
	// The check that this switches off asks whether an authority vouches for
	// a name. There is neither here: the pinned hash came from the
	// coordinator, which has authenticated the agent, and VerifyConnection
	// runs on every handshake and accepts that one key only.
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = pinned(peer, nil)
	return conf
}

// serverTLS serves one session.
func serverTLS(id *Identity, peer KeyHash, refused func(*PeerKeyError)) *tls.Config {
	conf := baseTLS(id)
	// Any certificate, because none is signed by an authority; pinned decides.
	conf.ClientAuth = tls.RequireAnyClientCert
	conf.VerifyConnection = pinned(peer, refused)
	return conf
}
