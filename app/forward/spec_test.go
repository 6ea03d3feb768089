package forward

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestASpecIsReadAs(t *testing.T) {
	for _, test := range []struct {
		text string
		want Spec
	}{
		{"3000", Spec{"", 3000, "", 3000}},
		{"65535", Spec{"", 65535, "", 65535}},
		{"8080:80", Spec{"", 8080, "", 80}},
		{"0:3000", Spec{"", 0, "", 3000}},
		{":3000", Spec{"", 0, "", 3000}},
		{"8080:db.internal:5432", Spec{"", 8080, "db.internal", 5432}},
		{"8080:db:5432", Spec{"", 8080, "db", 5432}},
		{"8080:db_1.internal.:5432", Spec{"", 8080, "db_1.internal.", 5432}},
		{"8080:10.0.0.7:5432", Spec{"", 8080, "10.0.0.7", 5432}},
		{"8080:[fd00::1]:80", Spec{"", 8080, "fd00::1", 80}},
		{"8080:localhost:80", Spec{"", 8080, "localhost", 80}},
		{"0:db:5432", Spec{"", 0, "db", 5432}},
		{"127.0.0.1:8080:80", Spec{"127.0.0.1", 8080, "", 80}},
		{"127.0.0.1:0:80", Spec{"127.0.0.1", 0, "", 80}},
		{"[::1]:8080:80", Spec{"::1", 8080, "", 80}},
		{"[0:0:0:0:0:0:0:1]:8080:80", Spec{"::1", 8080, "", 80}},
		{"[fe80::1%eth0]:8080:80", Spec{"fe80::1%eth0", 8080, "", 80}},
		{"[::ffff:127.0.0.1]:8080:80", Spec{"127.0.0.1", 8080, "", 80}},
		{"*:8080:80", Spec{"*", 8080, "", 80}},
		{"0.0.0.0:8080:80", Spec{"0.0.0.0", 8080, "", 80}},
		{"[::]:8080:80", Spec{"::", 8080, "", 80}},
		{"localhost:8080:80", Spec{"", 8080, "", 80}},
		{"LocalHost:8080:80", Spec{"", 8080, "", 80}},
		{"myhost:8080:80", Spec{"myhost", 8080, "", 80}},
		{"127.0.0.1:8080:db.internal:5432", Spec{"127.0.0.1", 8080, "db.internal", 5432}},
		{"[::1]:8080:[fd00::1]:80", Spec{"::1", 8080, "fd00::1", 80}},
		{"*:0:[fd00::1]:80", Spec{"*", 0, "fd00::1", 80}},

		// A host and one port, where listening and reaching come to the same or
		// only listening makes sense.
		{"localhost:3000", Spec{"", 3000, "", 3000}},
		{"127.0.0.1:3000", Spec{"127.0.0.1", 3000, "", 3000}},
		{"127.0.0.2:3000", Spec{"127.0.0.2", 3000, "", 3000}},
		{"[::1]:3000", Spec{"::1", 3000, "", 3000}},
		{"*:3000", Spec{"*", 3000, "", 3000}},
		{"0.0.0.0:3000", Spec{"0.0.0.0", 3000, "", 3000}},
		{"[::]:3000", Spec{"::", 3000, "", 3000}},
	} {
		t.Run(test.text, func(t *testing.T) {
			got, err := ParseSpec(test.text)
			require.NoError(t, err)
			require.Equal(t, []Spec{test.want}, got)
		})
	}
}

func TestARangeIsOneForwardForEachPort(t *testing.T) {
	for _, test := range []struct {
		text        string
		n           int
		first, last Spec
	}{
		{"8000-8005", 6, Spec{"", 8000, "", 8000}, Spec{"", 8005, "", 8005}},
		{"8000-8000", 1, Spec{"", 8000, "", 8000}, Spec{"", 8000, "", 8000}},
		{"8000-8005:9000-9005", 6, Spec{"", 8000, "", 9000}, Spec{"", 8005, "", 9005}},
		{"65530-65535", 6, Spec{"", 65530, "", 65530}, Spec{"", 65535, "", 65535}},
		{"65535-65535:1-1", 1, Spec{"", 65535, "", 1}, Spec{"", 65535, "", 1}},
		{"1-65535", 65535, Spec{"", 1, "", 1}, Spec{"", 65535, "", 65535}},
		{"*:1-3:db:65533-65535", 3, Spec{"*", 1, "db", 65533}, Spec{"*", 3, "db", 65535}},
		{"[::1]:8000-8001", 2, Spec{"::1", 8000, "", 8000}, Spec{"::1", 8001, "", 8001}},
	} {
		t.Run(test.text, func(t *testing.T) {
			got, err := ParseSpec(test.text)
			require.NoError(t, err)
			require.Len(t, got, test.n)
			require.Equal(t, test.first, got[0])
			require.Equal(t, test.last, got[test.n-1])
			for i, s := range got {
				require.Equal(t, int(test.first.Local)+i, int(s.Local))
				require.Equal(t, int(test.first.RemotePort)+i, int(s.RemotePort))
			}
		})
	}
}

func TestABadSpecIsRefusedInOneSentence(t *testing.T) {
	long := strings.Repeat("a", MaxSpecLen+1)
	for _, test := range []struct {
		text string
		kind error
		want string
	}{
		{"", ErrSyntax, `port forward "": it is empty, expected [bind:]local:[host:]remote or a port`},
		{"0", ErrPort, `port forward "0": port 0 cannot be reached, expected a remote port from 1 to 65535, as in 0:3000`},
		{"8080:0", ErrPort, `port forward "8080:0": port 0 cannot be reached, expected a remote port from 1 to 65535, as in 0:3000`},
		{"65536", ErrPort, `port forward "65536": 65536 is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"000080", ErrPort, `port forward "000080": 000080 is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"-1", ErrPort, `port forward "-1": -1 is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"80-", ErrPort, `port forward "80-": 80- is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"1-2-3", ErrPort, `port forward "1-2-3": 1-2-3 is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"http", ErrPort, `port forward "http": http is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"8080:http", ErrPort, `port forward "8080:http": http is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"[::1]", ErrPort, `port forward "[::1]": [::1] is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"[80]:80", ErrHost, `port forward "[80]:80": [80] is not an IPv6 address, expected an address such as [::1], brackets are for IPv6 alone`},
		{"[127.0.0.1]:80:80", ErrHost, `port forward "[127.0.0.1]:80:80": [127.0.0.1] is not an IPv6 address, expected an address such as [::1], brackets are for IPv6 alone`},
		{"8005-8000", ErrRange, `port forward "8005-8000": the range 8005-8000 runs backwards, expected 8000-8005`},
		{"0-5", ErrRange, `port forward "0-5": a range cannot begin with port 0, expected a first port from 1 to 65535`},
		{"8000-8005:9000", ErrRange, `port forward "8000-8005:9000": 6 ports on this side and 1 port on the other, expected as many on both`},
		{"0:3000-3005", ErrRange, `port forward "0:3000-3005": 1 port on this side and 6 ports on the other, expected as many on both`},
		{":3000-3005", ErrRange, `port forward ":3000-3005": 1 port on this side and 6 ports on the other, expected as many on both`},
		{"db.internal:5432", ErrSyntax, `port forward "db.internal:5432": db.internal could be a host to reach or an address to listen on, ` +
			`expected 5432:db.internal:5432 to reach it from the workspace or db.internal:5432:5432 to listen on it`},
		{"10.0.0.7:5432", ErrSyntax, `port forward "10.0.0.7:5432": 10.0.0.7 could be a host to reach or an address to listen on, ` +
			`expected 5432:10.0.0.7:5432 to reach it from the workspace or 10.0.0.7:5432:5432 to listen on it`},
		{":8080:80", ErrHost, `port forward ":8080:80": the address to listen on is empty, expected * for every address, or no colon before the local port for loopback alone`},
		{"8080:80:90", ErrHost, `port forward "8080:80:90": 8080 stands where the address to listen on belongs, expected [bind:]local:[host:]remote`},
		{"8080:", ErrSyntax, `port forward "8080:": a part is empty, expected [bind:]local:[host:]remote, with an IPv6 address in brackets`},
		{"::1:8080:80", ErrSyntax, `port forward "::1:8080:80": a part is empty, expected [bind:]local:[host:]remote, with an IPv6 address in brackets`},
		{"127.0.0.1::80", ErrSyntax, `port forward "127.0.0.1::80": a part is empty, expected [bind:]local:[host:]remote, with an IPv6 address in brackets`},
		{"1:2:3:4:5", ErrSyntax, `port forward "1:2:3:4:5": it has more than four parts, expected [bind:]local:[host:]remote, with an IPv6 address in brackets`},
		{"[::1:8080", ErrSyntax, `port forward "[::1:8080": a bracket is not closed before a colon, expected an IPv6 address in brackets, as in [::1]:8080:80`},
		{"[::1]8080", ErrSyntax, `port forward "[::1]8080": a bracket is not closed before a colon, expected an IPv6 address in brackets, as in [::1]:8080:80`},
		{"8080:300.1.1.1:80", ErrHost, `port forward "8080:300.1.1.1:80": 300.1.1.1 is not a host, expected a host name, an IPv4 address or an IPv6 address in brackets`},
		{"8080:*:80", ErrHost, `port forward "8080:*:80": * is not a host, expected a host name, an IPv4 address or an IPv6 address in brackets`},
		{"8080:-db:80", ErrHost, `port forward "8080:-db:80": -db is not a host, expected a host name, an IPv4 address or an IPv6 address in brackets`},
		{"8080:d b:80", ErrHost, `port forward "8080:d b:80": d b is not a host, expected a host name, an IPv4 address or an IPv6 address in brackets`},
		{"8080:\x1b[2J:80", ErrHost, `port forward "8080:\x1b[2J:80": "\x1b[2J" is not a host, expected a host name, an IPv4 address or an IPv6 address in brackets`},
		{"8080:a..b:80", ErrHost, `port forward "8080:a..b:80": a..b is not a host, expected a host name, an IPv4 address or an IPv6 address in brackets`},
		{":db:80", ErrPort, `port forward ":db:80": a port is missing, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{":http", ErrPort, `port forward ":http": http is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"localhost:http", ErrPort, `port forward "localhost:http": http is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{"8080:" + strings.Repeat("a", 64) + ":80", ErrHost, `port forward "8080:` + strings.Repeat("a", 64) + `:80": ` + strings.Repeat("a", 64) +
			` is not a host, expected a host name, an IPv4 address or an IPv6 address in brackets`},
		{"8080:" + strings.Repeat("a.", 127) + "a:80", ErrHost, `port forward "8080:` + strings.Repeat("a.", 37) + `a"...: "` + strings.Repeat("a.", 40) +
			`"... is not a host, expected a host name, an IPv4 address or an IPv6 address in brackets`},
		{"[]:80", ErrHost, `port forward "[]:80": [] is not an IPv6 address, expected an address such as [::1], brackets are for IPv6 alone`},
		{"[fe80::1% ]:80:80", ErrHost, `port forward "[fe80::1% ]:80:80": [fe80::1% ] is not an IPv6 address, expected an address such as [::1], brackets are for IPv6 alone`},
		{"3000/tcp", ErrPort, `port forward "3000/tcp": 3000/tcp is not a port, expected a number from 1 to 65535 or a range such as 8000-8005`},
		{long, ErrSyntax, fmt.Sprintf(`port forward "%s"...: it is 1025 bytes long, expected at most 1024`, long[:maxQuoted])},
	} {
		t.Run(test.text[:min(len(test.text), 40)], func(t *testing.T) {
			_, err := ParseSpec(test.text)
			require.EqualError(t, err, test.want)
			require.ErrorIs(t, err, test.kind)
			var specErr *SpecError
			require.ErrorAs(t, err, &specErr)
			require.Equal(t, test.text, specErr.Spec)
		})
	}
}

func TestALocalPortThatIsWantedTwiceIsRefused(t *testing.T) {
	for _, test := range []struct {
		name    string
		texts   []string
		port    int // 0: they go together
		against string
	}{
		{"the same port", []string{"3000", "3000"}, 3000, "3000"},
		{"the same port to another target", []string{"3000", "9000", "3000:db:80"}, 3000, "3000"},
		{"a port inside a range", []string{"8000-8005", "8003:80"}, 8003, "8000-8005"},
		{"a range around a port", []string{"8003:80", "8000-8005"}, 8003, "8003:80"},
		{"two ranges at their ends", []string{"8000-8005", "8005-8010"}, 8005, "8000-8005"},
		{"all addresses after loopback", []string{"3000", "*:3000:80"}, 3000, "3000"},
		{"loopback after all addresses", []string{"*:3000:80", "3000"}, 3000, "*:3000:80"},
		{"all IPv4 after loopback", []string{"3000", "0.0.0.0:3000:80"}, 3000, "3000"},
		{"all IPv6 after loopback", []string{"3000", "[::]:3000:80"}, 3000, "3000"},
		{"one loopback address after both", []string{"3000", "[::1]:3000:80"}, 3000, "3000"},
		{"both loopback addresses after one", []string{"127.0.0.1:3000:80", "3000"}, 3000, "127.0.0.1:3000:80"},
		{"all addresses after all IPv6", []string{"[::]:3000:80", "*:3000:80"}, 3000, "[::]:3000:80"},
		{"all IPv4 after two addresses", []string{"127.0.0.1:3000:80", "10.0.0.1:3000:80", "0.0.0.0:3000:80"}, 3000, "127.0.0.1:3000:80"},
		{"the same host name in another case", []string{"myhost:3000:80", "MyHost:3000:81"}, 3000, "myhost:3000:80"},
		{"a host name after all addresses", []string{"[::]:3000:80", "myhost:3000:81"}, 3000, "[::]:3000:80"},
		{"all addresses after a host name", []string{"myhost:3000:81", "0.0.0.0:3000:80"}, 3000, "myhost:3000:81"},
		{"everything twice", []string{"1-65535", "65535:1"}, 65535, "1-65535"},

		{"different ports", []string{"3000", "3001:3000"}, 0, ""},
		{"different addresses", []string{"127.0.0.1:3000:80", "127.0.0.2:3000:80"}, 0, ""},
		{"different families", []string{"127.0.0.1:3000:80", "[::1]:3000:80"}, 0, ""},
		{"all of different families", []string{"0.0.0.0:3000:80", "[::]:3000:80"}, 0, ""},
		{"one IPv4 and all IPv6", []string{"127.0.0.1:3000:80", "[::]:3000:80"}, 0, ""},
		{"chosen ports", []string{"0:3000", "0:3000", "*:0:3000"}, 0, ""},
		{"ranges side by side", []string{"8000-8005", "8006-8010"}, 0, ""},
		{"every port of two addresses", []string{"127.0.0.1:1-65535", "[::1]:1-65535"}, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			specs, err := ParseSpecs(test.texts)
			if test.port == 0 {
				require.NoError(t, err)
				return
			}
			require.Nil(t, specs)
			require.ErrorIs(t, err, ErrDuplicate)
			require.EqualError(t, err, fmt.Sprintf(
				"port forward %q: local port %d is asked for by %q already, expected each local port once on an address",
				test.texts[len(test.texts)-1], test.port, test.against))
		})
	}
}

func TestMoreForwardsThanTheLimitAreRefused(t *testing.T) {
	_, err := ParseSpecs([]string{"127.0.0.1:1-65535", "[::1]:1-65535", "0:3000"})
	require.ErrorIs(t, err, ErrTooMany)
	require.EqualError(t, err, `port forward "0:3000": too many ports together with the forwards before it, expected at most 131070 in all`)
}

func TestABadSpecAmongGoodOnesIsNamed(t *testing.T) {
	_, err := ParseSpecs([]string{"3000", "http"})
	var specErr *SpecError
	require.ErrorAs(t, err, &specErr)
	require.Equal(t, "http", specErr.Spec)
}

func TestTheWholeRangeIsCheckedQuickly(t *testing.T) {
	begin := time.Now()
	specs, err := ParseSpecs([]string{"1-65535"})
	require.NoError(t, err)
	require.Len(t, specs, 65535)
	require.Less(t, time.Since(begin), 5*time.Second, "the check of overlaps is not linear")
}

func TestTheTargetIsWhatTheFarSideDials(t *testing.T) {
	require.Equal(t, "localhost:80", Spec{RemotePort: 80}.Target())
	require.Equal(t, "db:80", Spec{RemoteHost: "db", RemotePort: 80}.Target())
	require.Equal(t, "[fd00::1]:80", Spec{RemoteHost: "fd00::1", RemotePort: 80}.Target())
}

// genSpec draws specs in the canonical form that the parser returns.
func genSpec(t *rapid.T) Spec {
	v4 := rapid.Custom(func(t *rapid.T) string {
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4"))).String()
	})
	v6 := rapid.Custom(func(t *rapid.T) string {
		return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6"))).Unmap().String()
	})
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?(\.[a-z][a-z0-9]{0,10})?\.?`).
		Filter(func(s string) bool { return isHostName(s) && !isLoopbackName(s) })
	host := rapid.OneOf(v4, v6, name)
	return Spec{
		Bind:       rapid.OneOf(rapid.SampledFrom([]string{BindLoopback, BindAll, "::", "0.0.0.0", "fe80::1%eth0"}), host).Draw(t, "bind"),
		Local:      rapid.Uint16().Draw(t, "local"),
		RemoteHost: rapid.OneOf(rapid.Just(""), rapid.Just("localhost"), host).Draw(t, "host"),
		RemotePort: rapid.Uint16Min(1).Draw(t, "remote"),
	}
}

func TestPropertyASpecSurvivesBeingWrittenAndRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := genSpec(t)
		require.NoError(t, spec.validate())
		got, err := ParseSpec(spec.String())
		require.NoError(t, err)
		require.Equal(t, []Spec{spec}, got)
	})
}

// The check of overlaps is held against the obvious one that compares all pairs.
func TestPropertyOverlapIsFoundAsByComparingPairs(t *testing.T) {
	bind := rapid.SampledFrom([]string{BindLoopback, BindAll, "0.0.0.0", "::", "127.0.0.1", "::1", "10.0.0.1", "fd00::1", "myhost"})
	rapid.Check(t, func(t *rapid.T) {
		specs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Spec {
			return Spec{Bind: bind.Draw(t, "bind"), Local: rapid.Uint16Max(4).Draw(t, "local"), RemotePort: 1}
		}), 0, 8).Draw(t, "specs")
		want := false
		for i, a := range specs {
			for _, b := range specs[:i] {
				want = want || a.Local != 0 && a.Local == b.Local && overlap(a.Bind, b.Bind)
			}
		}
		err := checkOverlap(specs, func(i int) string { return specs[i].String() })
		require.Equal(t, want, err != nil, "%v: %v", specs, err)
	})
}

func overlap(a, b string) bool {
	for _, x := range claims(a) {
		for _, y := range claims(b) {
			if x.family == y.family && (x.addr == y.addr || x.addr == "" || y.addr == "") {
				return true
			}
		}
	}
	return false
}

func FuzzParseSpec(f *testing.F) {
	for _, text := range []string{
		"3000", "0:3000", ":3000", "8000-8005:9000-9005", "65530-65535", "[::1]:8080:[fd00::1]:80", "*:1:2",
		"127.0.0.1:8080:db.internal:5432", "localhost:3000", "[fe80::1%eth0]:1:1", "[::ffff:1.2.3.4%1]:1:1", "::1:80", "1-65535", "[", "]:", "a:b:c:d",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		specs, err := ParseSpec(text)
		if err != nil {
			var specErr *SpecError
			require.ErrorAs(t, err, &specErr)
			require.NotEmpty(t, specErr.Problem)
			require.NotEmpty(t, specErr.Expected)
			require.Error(t, specErr.Kind)
			require.NotContains(t, err.Error(), "\n")
			return
		}
		require.NotEmpty(t, specs)
		require.LessOrEqual(t, len(specs), 65535)
		for _, i := range []int{0, len(specs) - 1} {
			require.NoError(t, specs[i].validate())
			again, err := ParseSpec(specs[i].String())
			require.NoError(t, err)
			require.Equal(t, []Spec{specs[i]}, again)
		}
		if len(specs) <= 64 { // a long range is too slow for every run
			require.NoError(t, checkOverlap(specs, func(int) string { return text }))
		}
	})
}
