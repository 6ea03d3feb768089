package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/tunneler/tunneler/workspace/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newAuthority(t testing.TB, now *time.Time) *Authority {
	key, err := GenerateKey()
	require.NoError(t, err)
	return &Authority{Key: key, Now: func() time.Time { return *now }}
}

func TestATokenSaysWhatItWasIssuedFor(t *testing.T) {
	now := start
	a := newAuthority(t, &now)
	for _, c := range []Claims{
		{Subject: "ann", Scope: api.ScopeOwner},
		{Subject: "bob", Scope: api.ScopeViewer},
		{Subject: "agent:w1", Scope: api.ScopeAgent, Workspace: "w1", Build: 7, Agent: "main"},
	} {
		tok, err := a.Issue(c, time.Hour)
		require.NoError(t, err)
		require.Equal(t, now.Add(time.Hour), tok.Expires)

		got, err := a.Verify(tok.Token)
		require.NoError(t, err)
		require.NotEmpty(t, got.ID)
		c.ID, c.IssuedAt, c.Expires = got.ID, now, tok.Expires
		require.Equal(t, c, got)
	}
}

func TestTwoTokensNeverHaveTheSameID(t *testing.T) {
	now := start
	a := newAuthority(t, &now)
	one, err := a.Issue(Claims{Subject: "ann", Scope: api.ScopeOwner}, time.Hour)
	require.NoError(t, err)
	two, err := a.Issue(Claims{Subject: "ann", Scope: api.ScopeOwner}, time.Hour)
	require.NoError(t, err)
	require.NotEqual(t, one.Token, two.Token)
}

func TestClaimsThatContradictEachOtherAreNotIssued(t *testing.T) {
	now := start
	a := newAuthority(t, &now)
	for name, c := range map[string]Claims{
		"no subject":               {Scope: api.ScopeOwner},
		"no scope":                 {Subject: "ann"},
		"unknown scope":            {Subject: "ann", Scope: "root"},
		"owner of one build":       {Subject: "ann", Scope: api.ScopeOwner, Build: 1},
		"agent without workspace":  {Subject: "x", Scope: api.ScopeAgent, Build: 1, Agent: "main"},
		"agent without a build":    {Subject: "x", Scope: api.ScopeAgent, Workspace: "w", Agent: "main"},
		"agent without agent name": {Subject: "x", Scope: api.ScopeAgent, Workspace: "w", Build: 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.Issue(c, time.Hour)
			require.ErrorIs(t, err, ErrClaims)
		})
	}
}

func TestWhatIsRefusedAndWhy(t *testing.T) {
	now := start
	a := newAuthority(t, &now)
	good := wireClaims{Scope: api.ScopeOwner, RegisteredClaims: jwt.RegisteredClaims{
		Subject: "ann", Issuer: Issuer, Audience: jwt.ClaimStrings{Audience},
		IssuedAt: jwt.NewNumericDate(start), ExpiresAt: jwt.NewNumericDate(start.Add(time.Hour)),
	}}
	sign := func(method jwt.SigningMethod, key any, kid string, edit func(*wireClaims)) string {
		c := good
		if edit != nil {
			edit(&c)
		}
		tok := jwt.NewWithClaims(method, c)
		tok.Header["kid"] = kid
		s, err := tok.SignedString(key)
		require.NoError(t, err)
		return s
	}
	mine := func(edit func(*wireClaims)) string {
		return sign(jwt.SigningMethodEdDSA, a.Key.private, a.Key.ID(), edit)
	}
	other, err := GenerateKey()
	require.NoError(t, err)
	changed := strings.Split(mine(nil), ".")
	changed[1] = base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"eve","scope":"owner"}`))

	for name, c := range map[string]struct {
		raw  string
		want error
	}{
		"no token":                              {"", ErrMissing},
		"words":                                 {"hello", ErrMalformed},
		"three empty parts":                     {"..", ErrMalformed},
		"a token of 5 KB":                       {strings.Repeat("a", 5<<10), ErrMalformed},
		"no signature":                          {sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, a.Key.ID(), nil), ErrAlgorithm},
		"the public key used as an HMAC secret": {sign(jwt.SigningMethodHS256, []byte(a.Key.private.Public().(ed25519.PublicKey)), a.Key.ID(), nil), ErrAlgorithm},
		"an unknown algorithm":                  {header(t, map[string]any{"alg": "XX", "kid": a.Key.ID()}, mine(nil)), ErrAlgorithm},
		"another server's token":                {sign(jwt.SigningMethodEdDSA, other.private, other.ID(), nil), ErrForeign},
		"another key under our key's name":      {sign(jwt.SigningMethodEdDSA, other.private, a.Key.ID(), nil), ErrForeign},
		"claims changed after signing":          {strings.Join(changed, "."), ErrForeign},
		"no key name":                           {sign(jwt.SigningMethodEdDSA, a.Key.private, "", nil), ErrForeign},
		"expired":                               {mine(func(c *wireClaims) { c.ExpiresAt = jwt.NewNumericDate(start.Add(-Leeway - time.Second)) }), ErrExpired},
		"from the future":                       {mine(func(c *wireClaims) { c.IssuedAt = jwt.NewNumericDate(start.Add(Leeway + time.Minute)) }), ErrNotYetValid},
		"without an end":                        {mine(func(c *wireClaims) { c.ExpiresAt = nil }), ErrClaims},
		"another issuer":                        {mine(func(c *wireClaims) { c.Issuer = "else" }), ErrClaims},
		"another audience":                      {mine(func(c *wireClaims) { c.Audience = jwt.ClaimStrings{"tunneler/relay"} }), ErrClaims},
		"no subject":                            {mine(func(c *wireClaims) { c.Subject = "" }), ErrClaims},
		"unknown scope":                         {mine(func(c *wireClaims) { c.Scope = "root" }), ErrClaims},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.Verify(c.raw)
			require.ErrorIs(t, err, c.want)
		})
	}
}

// header replaces the header of a signed token.
func header(t *testing.T, h map[string]any, signed string) string {
	b, err := json.Marshal(h)
	require.NoError(t, err)
	parts := strings.Split(signed, ".")
	parts[0] = base64.RawURLEncoding.EncodeToString(b)
	return strings.Join(parts, ".")
}

func TestClocksMayDifferByTheLeewayAndNoMore(t *testing.T) {
	now := start
	a := newAuthority(t, &now)
	tok, err := a.Issue(Claims{Subject: "ann", Scope: api.ScopeOwner}, time.Minute)
	require.NoError(t, err)

	now = start.Add(-Leeway)
	_, err = a.Verify(tok.Token)
	require.NoError(t, err, "issued by a clock that is ahead")
	now = start.Add(time.Minute + Leeway - time.Second)
	_, err = a.Verify(tok.Token)
	require.NoError(t, err, "verified by a clock that is ahead")
	now = start.Add(time.Minute + Leeway + time.Second)
	_, err = a.Verify(tok.Token)
	require.ErrorIs(t, err, ErrExpired)
}

func TestAKeySurvivesItsTextForm(t *testing.T) {
	now := start
	a := newAuthority(t, &now)
	tok, err := a.Issue(Claims{Subject: "ann", Scope: api.ScopeOwner}, time.Hour)
	require.NoError(t, err)

	text, err := a.Key.MarshalPEM()
	require.NoError(t, err)
	key, err := ParseKey(text)
	require.NoError(t, err)
	require.Equal(t, a.Key.ID(), key.ID())
	_, err = (&Authority{Key: key, Now: a.Now}).Verify(tok.Token)
	require.NoError(t, err)
	require.NotContains(t, key.String(), string(text))
}

func TestWhatIsNoKeyIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":       "",
		"words":         "hello",
		"a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"a broken key":  "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"an X25519 key": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VuBCIEIKjEO0gz4YjxBXMNyz3TFOt3vVYyuzTr4r2BSxFq3Ytk\n-----END PRIVATE KEY-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseKey([]byte(text))
			require.Error(t, err)
		})
	}
}

func TestNoChangedTokenIsBelieved(t *testing.T) {
	now := start
	a := newAuthority(t, &now)
	tok, err := a.Issue(Claims{Subject: "ann", Scope: api.ScopeViewer}, time.Hour)
	require.NoError(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		b := []byte(tok.Token)
		at := rapid.IntRange(0, len(b)-1).Draw(rt, "at")
		to := rapid.Byte().Draw(rt, "to")
		if b[at] == to {
			return
		}
		b[at] = to
		if _, err := a.Verify(string(b)); err == nil {
			rt.Fatalf("believed %s", b)
		}
	})
}

func FuzzVerify(f *testing.F) {
	now := start
	a := newAuthority(f, &now)
	tok, err := a.Issue(Claims{Subject: "ann", Scope: api.ScopeOwner}, time.Hour)
	require.NoError(f, err)
	for _, seed := range []string{tok.Token, "", "..", "a.b.c", "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := a.Verify(raw)
		if err == nil && raw != tok.Token {
			t.Fatalf("a token that was never issued was believed: %+v", c)
		}
	})
}
