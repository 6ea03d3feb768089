package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

// formatVersion is the version of everything below the data directory that this
// package decides on: names of streams and subjects, encodings, file layout.
const formatVersion = 1

// What is in a data directory.
const (
	lockName      = "lock"      // held with flock(2) while the store is open; contains the holder's process ID
	versionName   = "version"   // formatVersion in decimal and a newline
	jetstreamName = "jetstream" // the embedded server's file store
	manifestName  = "clean"     // what an orderly Close has left; see manifest
)

// dataDir is a locked, checked and writable data directory.
type dataDir struct {
	path string
	lock *flock.Flock
}

// openDir takes the directory for this process, and only then looks at what is
// in it. The kernel releases the lock when the process ends, however it ends.
func openDir(path string) (_ *dataDir, err error) {
	if path == "" {
		return nil, errors.New("no data directory given")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create data directory: %w", err)
	}
	lockPath := filepath.Join(path, lockName)
	lock := flock.New(lockPath, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("cannot lock data directory: %w", err)
	}
	if !ok {
		return nil, &InUseError{Dir: path, PID: holder(lockPath)}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := os.WriteFile(lockPath, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("cannot write to data directory: %w", err)
	}
	if err := checkFormat(path); err != nil {
		return nil, err
	}
	js := filepath.Join(path, jetstreamName)
	if err := os.MkdirAll(js, 0o700); err != nil {
		return nil, fmt.Errorf("cannot create data directory: %w", err)
	}
	if err := checkWritable(js); err != nil {
		return nil, fmt.Errorf("cannot write to data directory: %w", err)
	}
	if err := checkStreams(path); err != nil {
		return nil, err
	}
	return &dataDir{path: path, lock: lock}, nil
}

// close lets go of the directory. clean says that a server ran on it and has
// stopped in good order.
func (d *dataDir) close(clean bool) error {
	var err error
	if clean {
		err = leaveManifest(d.path)
	}
	if e := d.lock.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("cannot unlock data directory: %w", e))
	}
	return err
}

// holder reads who holds the lock; 0 if that is not written yet.
func holder(lockPath string) int {
	text, err := os.ReadFile(lockPath)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 0 {
		return 0
	}
	return pid
}

// checkFormat reads the version file, and writes it if the directory has
// neither a version nor data. The version is there before the first datum is.
func checkFormat(path string) error {
	name := filepath.Join(path, versionName)
	text, err := os.ReadFile(name)
	switch {
	case err == nil:
		if version, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || version != formatVersion {
			return &IncompatibleError{Where: path, Found: describeVersion(text), Want: formatVersion}
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot read data directory: %w", err)
	}
	if entries, err := os.ReadDir(filepath.Join(path, jetstreamName)); err == nil && len(entries) > 0 {
		return &IncompatibleError{Where: path, Found: "unknown (data, but no version file)", Want: formatVersion}
	}
	if err := writeFileAtomically(name, []byte(strconv.Itoa(formatVersion)+"\n")); err != nil {
		return fmt.Errorf("cannot write to data directory: %w", err)
	}
	return nil
}

func describeVersion(text []byte) string {
	version := strings.TrimSpace(string(text))
	if n, err := strconv.Atoi(version); err == nil {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%.20q", version)
}

// checkWritable writes and removes a small file, so that a full or read-only
// disk is one error here and not half a store later.
func checkWritable(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 16<<10))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

func writeFileAtomically(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(name))
}

// syncDir puts on disk which files there are in a directory.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
