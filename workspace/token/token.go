// Package token issues and verifies the bearer tokens of the coordinator's
// API: JSON Web Tokens (RFC 7519) signed with EdDSA (RFC 8037).
//
// It knows what a token says and whether to believe it. It must not know what
// a scope allows (the coordinator's route table says that), where the signing
// key is kept, or anything of HTTP.
package token

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/tunneler/tunneler/workspace/api"
)

const (
	// Issuer is the "iss" claim of every token.
	Issuer = "tunneler"
	// Audience is the "aud" claim: the coordinator's API. Tokens for other
	// doors carry another.
	Audience = "tunneler/api"
	// Leeway is by how much the clocks of two coordinators may differ.
	Leeway = 30 * time.Second
	// MaxLength bounds a token in bytes; a longer one is not looked at.
	MaxLength = 4 << 10
)

// Why a token is refused. Verify's errors wrap exactly one of these.
var (
	// ErrMissing: there is no token at all.
	ErrMissing = errors.New("no token was sent")
	// ErrMalformed: it is not a token of this form.
	ErrMalformed = errors.New("the token is malformed")
	// ErrAlgorithm: it is signed with something else than EdDSA, or not at all.
	ErrAlgorithm = errors.New("the token is not signed with EdDSA")
	// ErrForeign: another key signed it, or it was changed afterwards.
	ErrForeign = errors.New("the token was not issued by this server")
	// ErrExpired: its time is over.
	ErrExpired = errors.New("the token has expired")
	// ErrNotYetValid: it comes from the future by more than Leeway.
	ErrNotYetValid = errors.New("the token is not valid yet")
	// ErrClaims: issuer, audience, subject or scope is missing or not ours.
	ErrClaims = errors.New("the token is not meant for this use")
)

// Claims are what a token says.
type Claims struct {
	// ID is unique to the token ("jti"). Issue fills it in.
	ID string
	// Subject is who acts ("sub"); never empty.
	Subject string
	// Scope is what the token may be used for.
	Scope api.Scope
	// IssuedAt and Expires have a precision of one second. Issue fills them in.
	IssuedAt time.Time
	Expires  time.Time

	// Workspace is the workspace's id, Build the number of the start build
	// and Agent the agent's name that a token of scope agent speaks for. They
	// are empty in any other.
	Workspace string
	Build     int64
	Agent     string
}

// wireClaims is the token's payload.
type wireClaims struct {
	jwt.RegisteredClaims
	Scope     api.Scope `json:"scope"`
	Workspace string    `json:"workspace,omitempty"`
	Build     int64     `json:"build,omitempty"`
	Agent     string    `json:"agent,omitempty"`
}

// Authority issues and verifies tokens with one key. It is safe for
// concurrent use.
type Authority struct {
	// Key signs.
	Key Key
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Issue signs a token that says c and lives for life.
func (a *Authority) Issue(c Claims, life time.Duration) (api.Token, error) {
	now := a.now().UTC().Truncate(time.Second)
	c.ID, c.IssuedAt, c.Expires = uuid.NewString(), now, now.Add(life).Truncate(time.Second)
	if err := c.check(); err != nil {
		return api.Token{}, err
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, wireClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			ID: c.ID, Subject: c.Subject, Issuer: Issuer, Audience: jwt.ClaimStrings{Audience},
			IssuedAt: jwt.NewNumericDate(c.IssuedAt), ExpiresAt: jwt.NewNumericDate(c.Expires),
		},
		Scope: c.Scope, Workspace: c.Workspace, Build: c.Build, Agent: c.Agent,
	})
	t.Header["kid"] = a.Key.ID()
	signed, err := t.SignedString(a.Key.private)
	if err != nil {
		return api.Token{}, fmt.Errorf("sign a token: %w", err)
	}
	return api.Token{Token: signed, Expires: c.Expires}, nil
}

// Verify checks raw and returns what it says. Its errors wrap one of the Err
// values of this package.
func (a *Authority) Verify(raw string) (Claims, error) {
	switch {
	case raw == "":
		return Claims{}, ErrMissing
	case len(raw) > MaxLength:
		return Claims{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrMalformed, len(raw), MaxLength)
	}
	var w wireClaims
	_, err := jwt.ParseWithClaims(raw, &w, a.keyFor,
		jwt.WithIssuer(Issuer), jwt.WithAudience(Audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(Leeway), jwt.WithTimeFunc(a.now), jwt.WithStrictDecoding())
	if err != nil {
		return Claims{}, refusal(err)
	}
	c := Claims{
		ID: w.ID, Subject: w.Subject, Scope: w.Scope, Expires: w.ExpiresAt.UTC(),
		Workspace: w.Workspace, Build: w.Build, Agent: w.Agent,
	}
	if w.IssuedAt != nil {
		c.IssuedAt = w.IssuedAt.UTC()
	}
	return c, c.check()
}

// keyFor pins the algorithm and the key, before the signature is looked at.
func (a *Authority) keyFor(t *jwt.Token) (any, error) {
	if t.Method != jwt.SigningMethodEdDSA {
		return nil, ErrAlgorithm
	}
	if kid, _ := t.Header["kid"].(string); kid != a.Key.ID() {
		return nil, ErrForeign
	}
	return a.Key.private.Public(), nil
}

func (a *Authority) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

// check reports claims that contradict each other.
func (c Claims) check() error {
	switch c.Scope {
	case api.ScopeOwner, api.ScopeViewer:
		if c.Workspace != "" || c.Build != 0 || c.Agent != "" {
			return fmt.Errorf("%w: scope %s does not go with an agent", ErrClaims, c.Scope)
		}
	case api.ScopeAgent:
		if c.Workspace == "" || c.Build <= 0 || c.Agent == "" {
			return fmt.Errorf("%w: scope agent needs workspace, build and agent", ErrClaims)
		}
	default:
		return fmt.Errorf("%w: unknown scope %q", ErrClaims, c.Scope)
	}
	if c.Subject == "" {
		return fmt.Errorf("%w: no subject", ErrClaims)
	}
	return nil
}

// refusal finds this package's word for an error of the parser.
func refusal(err error) error {
	for _, r := range []struct{ theirs, ours error }{
		{ErrAlgorithm, ErrAlgorithm}, {ErrForeign, ErrForeign},
		{jwt.ErrTokenSignatureInvalid, ErrForeign},
		{jwt.ErrTokenMalformed, ErrMalformed},
		{jwt.ErrTokenExpired, ErrExpired},
		{jwt.ErrTokenUsedBeforeIssued, ErrNotYetValid}, {jwt.ErrTokenNotValidYet, ErrNotYetValid},
		{jwt.ErrTokenUnverifiable, ErrAlgorithm}, // an alg that the parser does not know
	} {
		if errors.Is(err, r.theirs) {
			return r.ours
		}
	}
	return fmt.Errorf("%w: %w", ErrClaims, err)
}
