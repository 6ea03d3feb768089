package tailnet_test

import (
	"crypto/sha256"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tunneler/tunneler/transport/tailnet"
	"github.com/tunneler/tunneler/transport/tailnet/tailnettest"
)

func TestKeyHashIsTheSHA256OfThePublicKey(t *testing.T) {
	id := tailnettest.Identity(t)
	spki, err := x509.MarshalPKIXPublicKey(id.Certificate().Leaf.PublicKey)
	require.NoError(t, err)
	require.Equal(t, tailnet.KeyHash(sha256.Sum256(spki)), id.KeyHash())
	require.NotEqual(t, id.KeyHash(), tailnettest.Identity(t).KeyHash(), "every identity has a key of its own")
	require.False(t, id.KeyHash().IsZero())
}

func TestParseKeyHash(t *testing.T) {
	want := tailnettest.Identity(t).KeyHash()
	for _, test := range []struct {
		name, text string
		ok         bool
	}{
		{"reads what String writes", want.String(), true},
		{"reads capital digits", strings.ToUpper(want.String()), true},
		{"refuses nothing", "", false},
		{"refuses half a hash", want.String()[:32], false},
		{"refuses a digit more", want.String() + "0", false},
		{"refuses what is no digit", "x" + want.String()[1:], false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := tailnet.ParseKeyHash(test.text)
			if test.ok {
				require.NoError(t, err)
				require.Equal(t, want, got)
			} else {
				require.ErrorContains(t, err, "expected 64 hexadecimal digits")
				require.True(t, got.IsZero())
			}
		})
	}
}

func FuzzParseKeyHash(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("0f", 32))
	f.Add(strings.Repeat("zz", 32))
	f.Fuzz(func(t *testing.T, text string) {
		h, err := tailnet.ParseKeyHash(text)
		if err == nil {
			require.Equal(t, strings.ToLower(text), h.String())
		}
	})
}
