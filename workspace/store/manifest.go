package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// manifest is the size of each file that matters, by its path below the data
// directory, as an orderly Close left them. The embedded server takes a block that is missing or
// cut short for one that it had emptied itself, and says nothing; the manifest
// says otherwise. It exists only while no server runs.
type manifest map[string]int64

// checkManifest compares the directory with the manifest. It reports whether
// there is one; if not, the last Store was killed.
func checkManifest(dir string) (clean bool, err error) {
	name := filepath.Join(dir, manifestName)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read data directory: %w", err)
	}
	var want manifest
	if err := json.Unmarshal(text, &want); err != nil {
		return false, &CorruptError{What: name, Cause: err}
	}
	have, err := listFiles(dir)
	if err != nil {
		return false, err
	}
	for path, size := range want {
		got, ok := have[path]
		if ok && got == size {
			continue
		}
		cause := fmt.Errorf("it has %d bytes, and had %d when the store was closed", got, size)
		if !ok {
			cause = errors.New("it is missing, and was there when the store was closed")
		}
		return false, &CorruptError{What: filepath.Join(dir, path),
			Cause: fmt.Errorf("%w: restore the data directory from a backup, or delete %s to go on with what is left", cause, name)}
	}
	return true, nil
}

// removeManifest is called before the server starts: from then on the manifest
// would be out of date.
func removeManifest(dir string) error {
	err := os.Remove(filepath.Join(dir, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("cannot write to data directory: %w", err)
	}
	return nil
}

// leaveManifest is called when the server has stopped.
func leaveManifest(dir string) error {
	files, err := listFiles(dir)
	if err != nil {
		return err
	}
	text, err := json.Marshal(files)
	if err != nil {
		return fmt.Errorf("cannot encode manifest: %w", err)
	}
	if err := writeFileAtomically(filepath.Join(dir, manifestName), append(text, '\n')); err != nil {
		return fmt.Errorf("cannot write to data directory: %w", err)
	}
	return nil
}

// listFiles returns the meta files and message blocks of all streams.
func listFiles(dir string) (manifest, error) {
	files := make(manifest)
	streams, err := streamDirs(dir)
	if err != nil {
		return nil, err
	}
	for _, stream := range streams {
		root := filepath.Join(streamsDir(dir), stream)
		for _, sub := range []string{root, filepath.Join(root, messagesName)} {
			entries, err := os.ReadDir(sub)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("cannot read data directory: %w", err)
			}
			for _, entry := range entries {
				switch filepath.Ext(entry.Name()) {
				case ".blk", ".inf", ".sum":
				default:
					continue // what the server can make anew
				}
				path := filepath.Join(sub, entry.Name())
				info, err := os.Stat(path)
				if err != nil {
					return nil, fmt.Errorf("cannot read data directory: %w", err)
				}
				rel, err := filepath.Rel(dir, path)
				if err != nil {
					return nil, fmt.Errorf("cannot read data directory: %w", err)
				}
				files[rel] = info.Size()
			}
		}
	}
	return files, nil
}
