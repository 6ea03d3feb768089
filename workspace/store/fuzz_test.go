package store

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

func FuzzDecodeBatch(f *testing.F) {
	for _, records := range [][]LogRecord{
		{{Output: "x"}},
		{{Origin: 1, Level: "info", Source: "s", Stage: "g", Output: "a\nb\x00"}, {}},
	} {
		data, _, _, err := encodeBatch(records, batchHeader{Before: 5, Origin: 7})
		require.NoError(f, err)
		f.Add(data)
	}
	f.Add([]byte(`{"format":1,"records":2,"bytes":1}` + "\n{\"o\":\"x\"}\n"))
	f.Add([]byte(`{"format":1,"records":1}` + "\n{\"o\":\"x\"}"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := decodeBatch(data)
		if err != nil {
			return
		}
		require.Len(t, b.Records, b.batchHeader.Records)
		again, header, rest, err := encodeBatch(b.Records, batchHeader{Before: b.Before, Origin: b.Origin})
		require.NoError(t, err)
		require.Equal(t, b.Before, header.Before)
		twice, err := decodeBatch(again)
		require.NoError(t, err)
		require.Equal(t, len(b.Records), len(twice.Records)+len(rest))
		for i, r := range twice.Records {
			require.Equal(t, toWire(b.Records[i]).record(), r)
		}
	})
}

func FuzzValidateKey(f *testing.F) {
	for _, key := range []string{"a", "a.b", "a..b", ".", "*", ">", "a b", "_kv", "ä", "a/b=c-d_e.9", "\x00"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		err := ValidateKey(key)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalidName)
			require.LessOrEqual(t, len(err.Error()), 600)
			return
		}
		require.LessOrEqual(t, len(key), MaxKeyLen)
		require.True(t, server.IsValidLiteralSubject("$KV.b."+key), "it names one subject")
	})
}

func FuzzCut(f *testing.F) {
	f.Add("abc", 2)
	f.Add("ééé", 3)
	f.Add("\xff\xff\xff", 2)
	f.Add("\xffé\xff", 4)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		const mark = "~"
		if limit < len(mark) || limit > 1000 {
			return
		}
		got := cut(s, limit, mark)
		require.LessOrEqual(t, len(got), limit)
		require.True(t, utf8.ValidString(got))
		if valid := strings.ToValidUTF8(s, "\ufffd"); len(valid) <= limit && len(s) <= limit {
			require.Equal(t, valid, got)
		} else {
			require.True(t, strings.HasSuffix(got, mark))
		}
	})
}

func FuzzRecordLen(f *testing.F) {
	key := sha256.Sum256([]byte("KV_b-1"))
	hasher, err := highwayhash.New64(key[:])
	require.NoError(f, err)
	plain := blockRecord("$KV.b.k", nil, []byte("value"), hasher)
	marked := blockRecord("$KV.b.k", []byte("NATS/1.0\r\nKV-Operation: DEL\r\n\r\n"), nil, hasher)
	f.Add(plain)
	f.Add(append(plain, marked...))
	f.Add(append(plain, marked[:20]...))
	f.Add([]byte{})
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		good := goodPrefix(data, hasher)
		require.LessOrEqual(t, good, len(data))
		if good > 0 {
			require.True(t, anyRecord(data, hasher))
		}
	})
}

// blockRecord makes a record as the server does.
func blockRecord(subject string, header, data []byte, hasher hash.Hash64) []byte {
	length := recordHeaderLen + len(subject) + len(header) + len(data) + recordHashLen
	flag := 0
	if header != nil {
		length, flag = length+4, recordHasHeader
	}
	r := binary.LittleEndian.AppendUint32(nil, uint32(length|flag))
	r = binary.LittleEndian.AppendUint64(r, 1)
	r = binary.LittleEndian.AppendUint64(r, 2)
	r = binary.LittleEndian.AppendUint16(r, uint16(len(subject)))
	r = append(r, subject...)
	hasher.Reset()
	hasher.Write(r[4:20])
	hasher.Write([]byte(subject))
	if header != nil {
		r = binary.LittleEndian.AppendUint32(r, uint32(len(header)))
		r = append(r, header...)
		hasher.Write(header)
	}
	r = append(r, data...)
	hasher.Write(data)
	return hasher.Sum(r)
}
