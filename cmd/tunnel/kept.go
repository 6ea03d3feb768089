package main

import (
	"path/filepath"
	"slices"
	"sync"
)

// keptWorkspaces are those that go on when an embedded server ends. The list
// outlives the server.
type keptWorkspaces struct {
	path string
	mu   sync.Mutex
	ids  []string
}

func loadKept(dir string) (*keptWorkspaces, error) {
	k := &keptWorkspaces{path: filepath.Join(dir, "kept.json")}
	_, err := readPrivate(k.path, &k.ids)
	return k, err
}

func (k *keptWorkspaces) has(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.ids, id)
}

func (k *keptWorkspaces) set(id string, keep bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if slices.Contains(k.ids, id) == keep {
		return nil
	}
	if keep {
		k.ids = append(k.ids, id)
	} else {
		k.ids = slices.DeleteFunc(k.ids, func(x string) bool { return x == id })
	}
	return writePrivate(k.path, k.ids)
}
