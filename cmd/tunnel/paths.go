package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// dataDir is where the embedded server keeps its state.
func (p *program) dataDir() (string, error) {
	dir := p.flags.dataDir
	if dir == "" {
		dir = os.Getenv("TUNNEL_DATA_DIR")
	}
	if dir == "" {
		base, err := userDataDir()
		if err != nil {
			return "", withHint(err, "name a data directory with --data-dir")
		}
		dir = filepath.Join(base, "tunneler")
	}
	return filepath.Abs(dir)
}

func userDataDir() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no data directory: %w", err)
	}
	switch runtime.GOOS {
	case "darwin":
		return filepath.Join(home, "Library", "Application Support"), nil
	case "windows":
		return os.UserCacheDir() // %LocalAppData%
	default:
		return filepath.Join(home, ".local", "share"), nil
	}
}

// privateDir makes a directory that only its user can look into, and refuses
// one that is something else.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	return nil
}

// writePrivate is writeSecret of a value as JSON.
func writePrivate(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeSecret(path, append(b, '\n'))
}

// writeSecret writes a file that only its user can read, whole or not at all.
func writeSecret(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it is renamed
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// readPrivate reads a file that writePrivate wrote; ok is false when there is
// none. A file that others can read is refused: it holds a secret.
func readPrivate(path string, v any) (ok bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return false, withHint(fmt.Errorf("%s can be read by others (mode %04o) and holds a secret", path, info.Mode().Perm()), "chmod 600 "+path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}
