package token

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// pemType is the PEM label of a PKCS #8 private key (RFC 5958).
const pemType = "PRIVATE KEY"

// Key is an Ed25519 key that signs tokens. The zero Key signs nothing.
type Key struct {
	id      string
	private ed25519.PrivateKey
}

// GenerateKey makes a key from the operating system's random source.
func GenerateKey() (Key, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Key{}, fmt.Errorf("make a signing key: %w", err)
	}
	return newKey(private), nil
}

func newKey(private ed25519.PrivateKey) Key {
	sum := sha256.Sum256(private.Public().(ed25519.PublicKey))
	return Key{id: hex.EncodeToString(sum[:8]), private: private}
}

// ID names the key in the "kid" header of what it signs; it is made from the
// public key.
func (k Key) ID() string { return k.id }

// String names the key without giving it away.
func (k Key) String() string { return "signing key " + k.id }

// MarshalPEM renders the private key as PKCS #8 in PEM. It is a secret.
func (k Key) MarshalPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encode the signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParseKey reads what MarshalPEM writes.
func ParseKey(data []byte) (Key, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemType {
		return Key{}, errors.New("the signing key is not a PEM private key")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("read the signing key: %w", err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("the signing key is a %T, expected an Ed25519 key", parsed)
	}
	return newKey(private), nil
}
