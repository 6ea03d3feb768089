package tunneler

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/tunneler/tunneler/"

// ban says that no package below from may import one below ban, and why. A
// package of ours or of others is banned however it is reached; one of the
// standard library only if it is imported directly, since even a logger brings
// net/http along.
type ban struct{ from, ban, why string }

// bans is the import policy of docs/architecture.md as data. Paths of the
// module are relative to it.
var bans = []ban{
	{"events", "fsm", "events is what everybody shares; it imports nothing of ours"},
	{"events", "transport", "events is what everybody shares; it imports nothing of ours"},
	{"events", "app", "events is what everybody shares; it imports nothing of ours"},
	{"events", "workspace", "events is what everybody shares; it imports nothing of ours"},
	{"events", "cmd", "nobody imports the program"},
	{"events", "net", "a codec knows no sockets"},

	{"fsm", "transport", "the machine declares what it needs as interfaces"},
	{"fsm", "app", "the machine declares what it needs as interfaces"},
	{"fsm", "workspace", "the machine declares what it needs as interfaces"},
	{"fsm", "cmd", "nobody imports the program"},
	{"fsm", "net/http", "the machine knows no network"},
	{"fsm", "github.com/quic-go/quic-go", "the machine knows no network"},
	{"fsm", "github.com/gorilla/websocket", "the machine knows no network"},

	{"transport", "fsm", "bytes travel for whoever asks"},
	{"transport", "app", "bytes travel for whoever asks"},
	{"transport", "workspace", "bytes travel for whoever asks"},
	{"transport", "cmd", "nobody imports the program"},

	{"app", "fsm", "an application reaches a tunnel through its own small interface"},
	{"app", "transport", "an application reaches a tunnel through its own small interface"},
	{"app", "workspace", "an application runs on any tunnel"},
	{"app", "cmd", "nobody imports the program"},

	{"workspace", "fsm", "the far side does not know the tunneler"},
	{"workspace", "cmd", "nobody imports the program"},
	{"workspace/client", "workspace/coordinator", "the client speaks to any coordinator, over HTTP"},
	{"workspace/client", "github.com/nats-io", "the client does not carry a store"},
	{"workspace/agent", "workspace/coordinator", "the agent speaks to any coordinator, over its channel"},
	{"workspace/agent", "github.com/nats-io", "the agent does not carry a store"},
	{"workspace/provision", "workspace/coordinator", "a provisioner starts and stops; it does not decide"},
}

// rooms are the only folders at the top that hold Go code.
var rooms = []string{"app", "cmd", "events", "fsm", "transport", "workspace"}

func TestImportPolicy(t *testing.T) {
	for path, p := range listDeps(t) {
		for _, b := range bans {
			if !below(path, b.from) {
				continue
			}
			deps := p.Deps
			if b.ban == "net" || b.ban == "net/http" {
				deps = p.Imports
			}
			for _, dep := range deps {
				if below(dep, b.ban) && !below(path, b.ban) {
					t.Errorf("%s imports %s: %s", path, dep, b.why)
				}
			}
		}
	}
}

func TestEveryPackageIsInARoom(t *testing.T) {
	for path := range listDeps(t) {
		room, _, _ := strings.Cut(path, "/")
		require.Contains(t, rooms, room, "%s: a new room at the top is not welcome", path)
	}
}

// TestEveryBanCanBite fails for a ban that names a package which is not there:
// a policy that cannot be broken checks nothing.
func TestEveryBanCanBite(t *testing.T) {
	paths := listDeps(t)
	exists := func(p string) bool {
		for path := range paths {
			if below(path, p) {
				return true
			}
		}
		return false
	}
	for _, b := range bans {
		require.True(t, exists(b.from), "%s: no such package", b.from)
	}
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// listed is a package as `go list` shows it: what it imports itself, and all
// that it reaches. Paths of the module are relative to it.
type listed struct {
	ImportPath    string
	Imports, Deps []string
}

// listDeps lists every package of the module.
func listDeps(t *testing.T) map[string]listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...").Output()
	require.NoError(t, err)
	deps := make(map[string]listed)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		if p.ImportPath == strings.TrimSuffix(module, "/") {
			continue
		}
		for _, list := range [][]string{p.Imports, p.Deps} {
			for i, d := range list {
				list[i] = strings.TrimPrefix(d, module)
			}
		}
		deps[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	require.NotEmpty(t, deps)
	return deps
}
