package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// stableExecutable is a path of this program that lasts as long as what it
// starts: agents and their services are run by it again and again. `go run`
// builds into a directory that is gone when the command ends, so such a
// program is put into the data directory first.
func stableExecutable(dir string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot find this program: %w", err)
	}
	if !strings.Contains(filepath.ToSlash(self), "/go-build") {
		return self, nil
	}
	name, err := contentName(self)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "bin")
	if err := privateDir(bin); err != nil {
		return "", err
	}
	path := filepath.Join(bin, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	removeOthers(bin)
	if os.Link(self, path) == nil {
		return path, nil
	}
	return path, copyExecutable(self, path)
}

// contentName names the program by what is in it.
func contentName(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "tunnel-" + hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// removeOthers takes away the programs of earlier builds; processes that still
// run them are not disturbed.
func removeOthers(bin string) {
	old, err := filepath.Glob(filepath.Join(bin, "tunnel-*"))
	if err != nil {
		return
	}
	for _, path := range old {
		_ = os.Remove(path)
	}
}

func copyExecutable(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(to+".tmp", to)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		_ = os.Remove(to + ".tmp")
		return err
	}
	return nil
}
