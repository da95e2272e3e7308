package store

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// errDecode marks a row that does not decode: somebody else wrote it, or it is damaged.
var errDecode = errors.New("store: a row does not decode")

func isDecode(err error) bool { return errors.Is(err, errDecode) }

// encodeList is the JSON of a list, "" for nil.
func encodeList[S ~string](list []S) string {
	if list == nil {
		return ""
	}
	return encodeJSON(list)
}

// encodeMap is the JSON of a map, "" for nil.
func encodeMap[V any](m map[string]V) string {
	if m == nil {
		return ""
	}
	return encodeJSON(m)
}

func encodeJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: strings and bytes marshal always: %v", err))
	}
	return string(b)
}

// decodeList is the reverse of encodeList. Lists of plain strings, which is nearly all, are cut and not parsed.
func decodeList[S ~string](text string, err *error) []S {
	if text == "" {
		return nil
	}
	if len(text) >= 4 && strings.HasPrefix(text, `["`) && strings.HasSuffix(text, `"]`) && strings.IndexByte(text, '\\') < 0 {
		rest := text[2 : len(text)-2]
		list := make([]S, 0, strings.Count(rest, `","`)+1)
		for {
			one, more, ok := strings.Cut(rest, `","`)
			list = append(list, S(one))
			if !ok {
				return list
			}
			rest = more
		}
	}
	var list []S
	decodeJSON(text, &list, err)
	return list
}

func decodeMap[V any](text string, err *error) map[string]V {
	if text == "" {
		return nil
	}
	var m map[string]V
	decodeJSON(text, &m, err)
	return m
}

func decodeJSON(text string, v any, err *error) {
	if e := json.Unmarshal([]byte(text), v); e != nil && *err == nil {
		*err = fmt.Errorf("%w: %w", errDecode, e)
	}
}

// hexMark begins a text that stands for bytes which PostgreSQL's TEXT does not hold.
const hexMark = `\x`

// plain makes s fit for a TEXT column of either engine, reversibly: the trail must be writable, with its hash intact,
// whatever bytes a client put in its request.
func plain(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 && !strings.HasPrefix(s, hexMark) {
		return s
	}
	return hexMark + hex.EncodeToString([]byte(s))
}

// unplain is the reverse of plain.
func unplain(s *string, err *error) {
	if !strings.HasPrefix(*s, hexMark) {
		return
	}
	b, e := hex.DecodeString((*s)[len(hexMark):])
	if e != nil && *err == nil {
		*err = fmt.Errorf("%w: %w", errDecode, e)
	}
	*s = string(b)
}
