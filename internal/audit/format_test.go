package audit_test

// A second reader of records and checkpoints, from docs/format.md and Go's standard library alone: nothing here calls
// what it checks.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/audit"
	"github.com/tabard-id/tabard/internal/audit/audittest"
)

// hashOfRow is the hash of an exported record, by docs/format.md.
func hashOfRow(t *testing.T, line []byte) string {
	t.Helper()
	var l struct {
		Type   string
		Record map[string]any
	}
	d := json.NewDecoder(strings.NewReader(string(line)))
	d.UseNumber()
	if err := d.Decode(&l); err != nil || l.Type != "record" {
		t.Fatalf("%s: %v", line, err)
	}
	r := l.Record
	str := func(name string) []byte {
		s, _ := r[name].(string)
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
	}
	num := func(name string) []byte {
		n, _ := r[name].(json.Number)
		v, _ := n.Int64()
		return binary.BigEndian.AppendUint64(nil, uint64(v))
	}
	flag := func(name string) []byte {
		if on, _ := r[name].(bool); on {
			return []byte{1}
		}
		return []byte{0}
	}
	prev, err := hex.DecodeString(r["previousHash"].(string))
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte("tabard-audit-1"), prev...)
	for _, part := range [][]byte{str("writer"), num("sequence"), num("timeMillis"), str("account"), str("principalId"), str("principal"), str("accessKeyId"),
		str("requestId"), str("action"), flag("allow"), str("rule"), str("resource"), str("workloadName"), str("workloadUid"), str("userRef"),
		str("provider"), str("flow"), str("connectionId"), str("outcome"), str("detail"), flag("asserted"), flag("assertable"), num("generation")} {
		b = append(b, part...)
	}
	scopes, _ := r["scopes"].([]any)
	b = binary.BigEndian.AppendUint64(b, uint64(len(scopes)))
	for _, s := range scopes {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s.(string)))), s.(string)...)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func record() access.Record {
	r := access.Record{
		Writer: "w", Sequence: 3, Time: time.UnixMilli(1795428000123), Account: "000000000000", Principal: "p1", Name: "bot", AccessKey: "AKIA1", RequestID: "req",
		Action: "GetResourceOauth2Token", Allow: true, Rule: "policy:calendar",
		Facts: access.Facts{Resource: "arn:x", Workload: "calendar", WorkloadUID: "uid", UserRef: "ref", Asserted: true, Assertable: true, Provider: "google",
			Flow: "M2M", Scopes: []string{"a", "nul\x00 <ü>"}, Connection: "c1", Generation: -3, Outcome: "released", Detail: "d"},
	}
	r.Seal([32]byte{1, 2, 3})
	return r
}

func TestFormatOfRecords(t *testing.T) {
	bare := access.Record{Writer: "w", Sequence: 1}
	bare.Seal([32]byte{})
	for _, r := range []access.Record{record(), bare} {
		row := audit.RowOf(r)
		line, err := json.Marshal(audit.Line{Type: "record", Record: &row})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := hashOfRow(t, line), hex.EncodeToString(r.Hash[:]); got != want {
			t.Errorf("the second reader has hash %s, want %s", got, want)
		}
		back, err := row.Record()
		if again := back; err != nil || back.Hash != r.Hash {
			t.Errorf("back: %v", err)
		} else if again.Seal(back.Prev); again.Hash != r.Hash {
			t.Error("what came back has another hash")
		}
	}
	// The bytes are what they were when the first records were written.
	r := record()
	if got := hex.EncodeToString(r.Hash[:]); got != recordVector {
		t.Errorf("hash %s, want %s: records that exist do not verify any more", got, recordVector)
	}
}

func TestFormatOfCheckpoints(t *testing.T) {
	key, err := audittest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err := key.Sign(audit.Type, map[string]any{"v": 1, "sub": "000000000000", "number": 2, "prev": "x", "writers": []any{}})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	var jwk struct{ Kty, Crv, X, Y, Kid string }
	if err := json.Unmarshal([]byte(key.Public()), &jwk); err != nil {
		t.Fatal(err)
	}
	decode := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, decode(jwk.X)...), decode(jwk.Y)...))
	if err != nil {
		t.Fatal(err)
	}
	sum, sig := sha256.Sum256([]byte(parts[0]+"."+parts[1])), decode(parts[2])
	if !ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Error("the signature does not verify")
	}
	thumb := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + jwk.X + `","y":"` + jwk.Y + `"}`))
	if jwk.Kid != base64.RawURLEncoding.EncodeToString(thumb[:]) {
		t.Error("the key's id is no RFC 7638 thumbprint")
	}
	if header := string(decode(parts[0])); !strings.Contains(header, `"typ":"tabard-audit-checkpoint+jwt"`) || !strings.Contains(header, `"alg":"ES256"`) {
		t.Errorf("header %s", header)
	}
}

// A checkpoint is taken only where every bit of it is right.
func TestOpenRefuses(t *testing.T) {
	key, other := newKey(t), newKey(t)
	keys := func(k audittest.Key) []byte { return []byte(`{"keys":[` + k.Public() + `]}`) }
	sign := func(typ string, claims map[string]any) string {
		token, err := key.Sign(typ, claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := map[string]any{"v": 1, "sub": "1", "number": 1, "writers": []any{}}
	token := sign(audit.Type, good)
	if c, err := audit.Open(token, keys(key)); err != nil || c.Number != 1 {
		t.Fatalf("a good one: %v", err)
	}
	parts := strings.Split(token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"` + audit.Type + `"}`))
	for what, bad := range map[string]string{
		"another key":            "", // below
		"another type":           sign("at+jwt", good),
		"another version":        sign(audit.Type, map[string]any{"v": 2, "sub": "1", "number": 1}),
		"a hash that is none":    sign(audit.Type, map[string]any{"v": 1, "sub": "1", "number": 1, "writers": []any{map[string]any{"w": "w", "n": 1, "h": "x"}}}),
		"no algorithm":           none + "." + parts[1] + ".",
		"another payload":        parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"v":1,"sub":"1","number":2}`)) + "." + parts[2],
		"no signature":           parts[0] + "." + parts[1] + ".",
		"two parts":              parts[0] + "." + parts[1],
		"padding":                token + "=",
		"a line break":           parts[0] + "." + parts[1] + ".\n" + parts[2],
		"more than there may be": token + strings.Repeat("A", 64<<10),
	} {
		set := keys(key)
		if bad == "" {
			bad, set = token, keys(other)
		}
		if _, err := audit.Open(bad, set); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func newKey(t *testing.T) audittest.Key {
	t.Helper()
	key, err := audittest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	private, err := key.Private()
	if err != nil {
		t.Fatal(err)
	}
	back, err := audittest.ParseKey(private)
	if err != nil || back.ID() != key.ID() {
		t.Fatalf("what Private wrote: %v", err)
	}
	return back
}

const recordVector = "48b1a0d1639a5183a5d9daebea540ff689765d77126821621f109384faf86070"
