package tailnet

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
)

// KeyHash names a peer: the SHA-256 of its public key as a DER-encoded
// SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
type KeyHash [sha256.Size]byte

// ParseKeyHash reads the 64 hexadecimal digits that [KeyHash.String] writes.
func ParseKeyHash(s string) (KeyHash, error) {
	var h KeyHash
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return KeyHash{}, fmt.Errorf("bad key hash of %d characters: expected %d hexadecimal digits", len(s), hex.EncodedLen(len(h)))
	}
	copy(h[:], b)
	return h, nil
}

// String renders the hash as 64 hexadecimal digits.
func (h KeyHash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h was never set; no key has this hash.
func (h KeyHash) IsZero() bool { return h == KeyHash{} }

func hashOf(cert *x509.Certificate) KeyHash {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// Identity is one side's key for one session, with the self-signed certificate
// that TLS wants around it. The key never leaves the process, and it is not
// meant to be kept: make a new one for each session.
type Identity struct {
	cert tls.Certificate
	hash KeyHash
}

// NewIdentity makes a key and its certificate.
//
// The key is Ed25519: `go test -bench Handshake ./transport/tailnet` shows
// that it costs a handshake no more than ECDSA P-256 does, and its certificate
// is a quarter shorter, which keeps the server's first flight small.
func NewIdentity() (*Identity, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a session key: %w", err)
	}
	return identityOf(key)
}

func identityOf(key crypto.Signer) (*Identity, error) {
	// Nobody reads names or dates: only the key counts, and for how long is
	// the session's expiry. So the certificate says the least that is
	// well-formed; a date would only make the hosts' clocks matter.
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a session certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make a session certificate: %w", err)
	}
	return &Identity{
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		hash: hashOf(leaf),
	}, nil
}

// KeyHash is what the peer must pin to accept this identity.
func (id *Identity) KeyHash() KeyHash { return id.hash }
