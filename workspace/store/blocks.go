package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// After a kill the embedded server reads its blocks of messages anew. At the
// first record that it cannot read it cuts the block off, on disk, whatever
// comes after it, and says nothing. At the end of the last block that is right:
// a write was cut short. Anywhere else it would turn one bad byte into the silent
// loss of every value behind it, so the blocks of buckets are read here first.
// Those of logs are not: they may be large, and a log with a hole is still a log.
//
// A record of a block, all integers little-endian (nats-server, filestore.go):
//
//	4 bytes   length of the record; the highest bit says that there is a header
//	8 bytes   sequence
//	8 bytes   time stamp
//	2 bytes   length of the subject
//	          subject
//	4 bytes   length of the header, if there is one
//	          header and data
//	8 bytes   HighwayHash-64 of all but the three lengths, under the SHA-256 of
//	          "STREAM-NUMBER", the number being the block's
const (
	recordHeaderLen = 22
	recordHashLen   = 8
	recordHasHeader = 1 << 31
	maxRecordLen    = 2 * maxPayload
)

// checkBuckets looks for damage in the blocks of all buckets. clean says that no
// write was cut short.
func checkBuckets(dataDir string, clean bool) error {
	streams, err := streamDirs(dataDir)
	if err != nil {
		return err
	}
	for _, stream := range streams {
		if !strings.HasPrefix(stream, kvStream("")) {
			continue
		}
		if err := checkBlocks(filepath.Join(streamsDir(dataDir), stream, messagesName), stream, clean); err != nil {
			return err
		}
	}
	return nil
}

func checkBlocks(dir, stream string, clean bool) error {
	blocks, err := blockFiles(dir)
	if err != nil {
		return err
	}
	for i, block := range blocks {
		data, err := os.ReadFile(block.path)
		if err != nil {
			return fmt.Errorf("cannot read data directory: %w", err)
		}
		key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", stream, block.number))
		hasher, err := highwayhash.New64(key[:])
		if err != nil {
			return fmt.Errorf("cannot check %s: %w", block.path, err)
		}
		good := goodPrefix(data, hasher)
		if good == len(data) {
			continue
		}
		if last := i == len(blocks)-1; clean || !last || anyRecord(data[good+1:], hasher) {
			return &CorruptError{What: block.path, Cause: fmt.Errorf("what is at byte %d cannot be read: restore the data directory from a backup", good)}
		}
	}
	return nil
}

type blockFile struct {
	number int
	path   string
}

// blockFiles returns the blocks of a stream in their order.
func blockFiles(dir string) ([]blockFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read data directory: %w", err)
	}
	var blocks []blockFile
	for _, entry := range entries {
		digits, ok := strings.CutSuffix(entry.Name(), ".blk")
		if n, err := strconv.Atoi(digits); ok && err == nil {
			blocks = append(blocks, blockFile{n, filepath.Join(dir, entry.Name())})
		}
	}
	slices.SortFunc(blocks, func(a, b blockFile) int { return a.number - b.number })
	return blocks, nil
}

// goodPrefix returns how many bytes at the beginning of a block are whole records.
func goodPrefix(data []byte, hasher hash.Hash64) int {
	good := 0
	for good < len(data) {
		n, err := recordLen(data[good:], hasher)
		if err != nil {
			break
		}
		good += n
	}
	return good
}

// anyRecord reports whether there is a whole record anywhere.
func anyRecord(data []byte, hasher hash.Hash64) bool {
	for i := range data {
		if _, err := recordLen(data[i:], hasher); err == nil {
			return true
		}
	}
	return false
}

var errNoRecord = errors.New("no record")

// recordLen returns the length of the whole and undamaged record that data begins with.
func recordLen(data []byte, hasher hash.Hash64) (int, error) {
	if len(data) < recordHeaderLen+recordHashLen {
		return 0, errNoRecord
	}
	length := binary.LittleEndian.Uint32(data)
	hasHeader := length&recordHasHeader != 0
	n := int(length &^ recordHasHeader)
	body := recordHeaderLen + int(binary.LittleEndian.Uint16(data[20:])) // where header or data begin
	end := n - recordHashLen
	if n > len(data) || n > maxRecordLen || body > end {
		return 0, errNoRecord
	}
	hasher.Reset()
	hasher.Write(data[4:20])
	hasher.Write(data[recordHeaderLen:body])
	if hasHeader {
		if body+4 > end {
			return 0, errNoRecord
		}
		body += 4
	}
	hasher.Write(data[body:end])
	if !bytes.Equal(hasher.Sum(nil), data[end:n]) {
		return 0, errNoRecord
	}
	return n, nil
}
