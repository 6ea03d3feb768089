package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// streamsDir is where the embedded server keeps a directory per stream: meta.inf
// and its checksum meta.sum, written in this order when the stream is made, and
// the messages in msgs/*.blk.
func streamsDir(dataDir string) string {
	return filepath.Join(dataDir, jetstreamName, "$G", "streams")
}

// messagesName is the directory of a stream's blocks of messages.
const messagesName = "msgs"

// checkStreams looks for damage before the server does, which is quick to
// forget what it cannot read.
func checkStreams(dataDir string) error {
	if err := sweepStreams(dataDir); err != nil {
		return err
	}
	clean, err := checkManifest(dataDir)
	if err != nil {
		return err
	}
	if err := checkBuckets(dataDir, clean); err != nil {
		return err
	}
	return removeManifest(dataDir)
}

// sweepStreams looks for streams that the server would silently leave out: it
// only warns about a stream without its two meta files, starts without it, and
// lets the next caller make an empty one over it. Without messages that is a
// creation cut short by a kill, which is cleared away; with messages it is damage.
func sweepStreams(dataDir string) error {
	streams, err := streamDirs(dataDir)
	if err != nil {
		return err
	}
	for _, name := range streams {
		dir := filepath.Join(streamsDir(dataDir), name)
		complete := nonEmpty(filepath.Join(dir, "meta.inf")) && nonEmpty(filepath.Join(dir, "meta.sum"))
		switch {
		case complete:
		case hasMessages(dir):
			return &CorruptError{What: dir, Cause: errors.New("it has messages, but its meta.inf or meta.sum is missing: restore them or move the directory away")}
		default:
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("cannot clear away a half-made stream: %w", err)
			}
		}
	}
	return nil
}

// checkStreamsLoaded finds streams that are on disk but that the server did not load.
func checkStreamsLoaded(dataDir string, loaded map[string]bool, reason error) error {
	streams, err := streamDirs(dataDir)
	if err != nil {
		return err
	}
	for _, name := range streams {
		if !loaded[name] {
			return &CorruptError{What: filepath.Join(streamsDir(dataDir), name),
				Cause: fmt.Errorf("the stream cannot be loaded: restore it or move the directory away: %w", reason)}
		}
	}
	return nil
}

// streamDirs lists the directories of streams, without the ones that the server
// is about to delete, which begin with a dot.
func streamDirs(dataDir string) ([]string, error) {
	entries, err := os.ReadDir(streamsDir(dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read data directory: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

func nonEmpty(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}

// hasMessages reports whether there may be messages: if that cannot be found
// out, there may.
func hasMessages(streamDir string) bool {
	dir := filepath.Join(streamDir, messagesName)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) == ".blk" && nonEmpty(filepath.Join(dir, entry.Name())) {
			return true
		}
	}
	return false
}

// formatKey is the key of the format version in a stream's metadata. It guards
// an external server, which has no version file, and says who made the stream.
const formatKey = "tunneler-format"

func formatMetadata() map[string]string {
	return map[string]string{formatKey: strconv.Itoa(formatVersion)}
}

// checkStreamFormat is asked before an existing stream is changed.
func (s *Store) checkStreamFormat(ctx context.Context, stream string) error {
	info, err := s.js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	found := info.CachedInfo().Config.Metadata[formatKey]
	if found != strconv.Itoa(formatVersion) {
		return &IncompatibleError{Where: "stream " + stream, Found: describeVersion([]byte(found)), Want: formatVersion}
	}
	return nil
}
