package e2e_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// window is how many consecutive characters of a secret, in any of the encodings, count as a leak.
const window = 16

// trap knows secrets and has seen what the product lets out. Where a piece of one is in the other, the test fails.
type trap struct {
	mu       sync.Mutex // guards what follows
	canaries map[string]string
	seen     []sighting
}

// sighting is a text that came out somewhere, and which kinds of canary are entitled to be in it.
type sighting struct {
	where, text string
	allowed     []string
}

// know adds a secret. One that is too short to search for is an error in the test.
func (tr *trap) know(t testing.TB, kind, value string) {
	t.Helper()
	if len(value) < window {
		t.Errorf("a %s of %d characters is too short for a canary", kind, len(value))
		return
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.canaries == nil {
		tr.canaries = map[string]string{}
	}
	if _, known := tr.canaries[value]; !known {
		tr.canaries[value] = kind
	}
}

// saw adds a text in which only canaries of the allowed kinds may be.
func (tr *trap) saw(where, text string, allowed ...string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.seen = append(tr.seen, sighting{where, text, allowed})
}

// kinds counts the canaries of each kind.
func (tr *trap) kinds() map[string]int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	n := map[string]int{}
	for _, kind := range tr.canaries {
		n[kind]++
	}
	return n
}

// leaks searches every text for every window of every secret in every encoding. It names place, kind and encoding.
func (tr *trap) leaks() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	type origin struct{ kind, encoding string }
	index := map[[window]byte]origin{}
	for value, kind := range tr.canaries {
		for encoding, text := range encodings(value) {
			for i := 0; i+window <= len(text); i++ {
				index[[window]byte([]byte(text[i:i+window]))] = origin{kind, encoding}
			}
		}
	}
	var found []string
	told := map[string]bool{}
	for _, s := range tr.seen {
		for reading, text := range readings(s.text) {
			for i := 0; i+window <= len(text); i++ {
				o, ok := index[[window]byte([]byte(text[i:i+window]))]
				if !ok || contains(s.allowed, o.kind) {
					continue
				}
				if leak := fmt.Sprintf("%s holds a %s (%s, %s)", s.where, o.kind, o.encoding, reading); !told[leak] {
					told[leak] = true
					found = append(found, leak+": …"+text[max(0, i-80):min(len(text), i+60)]+"…")
				}
			}
		}
	}
	return found
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// encodings returns the forms of a secret that are searched for. In base64 it may begin at any of three places of a
// group; the characters that depend on its neighbours are left out.
func encodings(value string) map[string]string {
	out := map[string]string{
		"raw": value, "hex": hex.EncodeToString([]byte(value)), "upper hex": strings.ToUpper(hex.EncodeToString([]byte(value))),
	}
	for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		for offset, skip := range []int{0, 2, 3} {
			text := enc.EncodeToString([]byte(strings.Repeat("\x00", offset) + value))
			out[fmt.Sprintf("%s at %d", name, offset)] = text[skip : (offset+len(value))*8/6]
		}
	}
	return out
}

var (
	percent    = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	jsonEscape = regexp.MustCompile(`\\u00[0-9A-Fa-f]{2}`)
)

// readings returns the text as it is and as what reads it would decode it.
func readings(text string) map[string]string {
	out := map[string]string{"as it is": text}
	undo := func(re *regexp.Regexp, digits int) string {
		return re.ReplaceAllStringFunc(text, func(m string) string {
			n, _ := strconv.ParseUint(m[len(m)-digits:], 16, 8) // the expression lets only digits through
			return string([]byte{byte(n)})
		})
	}
	for name, decoded := range map[string]string{
		"percent-decoded": undo(percent, 2), "JSON-decoded": undo(jsonEscape, 2), "HTML-decoded": html.UnescapeString(text),
	} {
		if decoded != text {
			out[name] = decoded
		}
	}
	return out
}

// The trap itself must catch: a search that finds nothing proves nothing otherwise.
func TestG01_TheTrapCatches(t *testing.T) {
	const value = "p7Qx-Zr4_kT9wLmB2vEyA6"
	b64 := func(prefix string) string {
		return base64.StdEncoding.EncodeToString([]byte(prefix + value + "tail"))
	}
	for what, text := range map[string]string{
		"raw": "x" + value + "y", "a piece": "x" + value[3:3+window] + "y", "base64": b64(""), "base64 one later": b64("a"), "base64 two later": b64("ab"),
		"base64url": base64.URLEncoding.EncodeToString([]byte("ab" + value)), "hex": hex.EncodeToString([]byte(value)),
		"upper hex": fmt.Sprintf("%X", value), "percent": strings.NewReplacer("-", "%2D", "_", "%5f", "p", "%70").Replace(value),
		"JSON": strings.NewReplacer("-", `\u002d`, "Z", `\u005A`).Replace(value), "HTML": strings.NewReplacer("-", "&#45;").Replace(value),
	} {
		tr := &trap{}
		tr.know(t, "token", value)
		tr.saw("here", text)
		if len(tr.leaks()) == 0 {
			t.Errorf("%s: not caught in %q", what, text)
		}
		tr = &trap{}
		tr.know(t, "token", value)
		tr.saw("here", text, "token")
		if found := tr.leaks(); len(found) > 0 {
			t.Errorf("%s: caught where it is entitled: %v", what, found)
		}
	}
}
