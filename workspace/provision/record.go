package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// recordVersion is the version of the record's form. One of another version is not read.
const recordVersion = 1

// A record is what a server leaves for the next one, about one workspace that runs. It holds no secret.
type record struct {
	Version       int       `json:"version"`
	WorkspaceID   string    `json:"workspace_id"`
	WorkspaceName string    `json:"workspace_name"`
	Build         int64     `json:"build_number"`
	Dir           string    `json:"dir"`
	Process       identity  `json:"process"`
	StartedAt     time.Time `json:"started_at"`
	Established   bool      `json:"established"`
	// Grace is how long the workspace has to stop.
	Grace time.Duration `json:"grace_ns"`
}

func (r record) ref() Ref { return Ref{r.WorkspaceID, r.WorkspaceName, r.Build} }

// records is the directory that holds one record for each workspace that runs.
type records struct{ dir string }

func (r records) path(workspaceID string) string { return filepath.Join(r.dir, workspaceID+".json") }

// save writes a record whole or not at all, and so that it survives a power failure.
func (r records) save(rec record) error {
	rec.Version = recordVersion
	data, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(r.dir, "."+rec.WorkspaceID+".*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), r.path(rec.WorkspaceID))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return r.sync()
}

// load reads a workspace's record. It is fs.ErrNotExist when there is none.
func (r records) load(workspaceID string) (record, error) {
	data, err := os.ReadFile(r.path(workspaceID))
	if err != nil {
		return record{}, err
	}
	return parseRecord(workspaceID, data)
}

func parseRecord(workspaceID string, data []byte) (record, error) {
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return record{}, fmt.Errorf("record of workspace %s: %w", workspaceID, err)
	}
	if rec.Version != recordVersion {
		return record{}, fmt.Errorf("record of workspace %s has version %d, expected %d", workspaceID, rec.Version, recordVersion)
	}
	if rec.WorkspaceID != workspaceID || rec.Build < 1 || !filepath.IsAbs(rec.Dir) || rec.Process.PID <= 1 || rec.Grace < 0 {
		return record{}, fmt.Errorf("record of workspace %s does not make sense", workspaceID)
	}
	return rec, nil
}

// remove forgets a workspace. Forgetting one that is not there is no error.
func (r records) remove(workspaceID string) error {
	err := os.Remove(r.path(workspaceID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.sync()
}

// list names the workspaces that have a record, and clears away what a crash in the middle of save left.
func (r records) list() ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, entry := range entries {
		id, isRecord := strings.CutSuffix(entry.Name(), ".json")
		if isRecord && workspaceIDRE.MatchString(id) {
			ids = append(ids, id)
			continue
		}
		// Only what save names in this way is ours to remove.
		if id, _, ok := strings.Cut(strings.TrimPrefix(entry.Name(), "."), "."); ok && entry.Name()[0] == '.' && workspaceIDRE.MatchString(id) {
			if err := os.Remove(filepath.Join(r.dir, entry.Name())); err != nil {
				return nil, err
			}
		}
	}
	return ids, nil
}

// sync makes the names in the directory durable.
func (r records) sync() error {
	d, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
