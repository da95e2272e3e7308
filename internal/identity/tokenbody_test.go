package identity

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// The bodies of docs/format.md, which every later version must read.
func TestTokenBodyVectors(t *testing.T) {
	base := tokenBody{issued: time.UnixMilli(1_700_000_000_000), expires: time.UnixMilli(1_700_000_900_000), generation: 3, workload: "wi-abc"}
	for i := range base.id {
		base.id[i] = byte(i)
	}
	user, full := base, base
	signed := base
	signed.user, signed.session = User{Kind: JWTUser, Issuer: "https://i.example", Subject: "alice"}, signIn{key: "0a1b", epoch: 258}
	user.user, user.authenticated = User{Kind: JWTUser, Issuer: "https://i.example", Subject: "alice"}, time.UnixMilli(1_699_999_999_000)
	user.retained = &retained{handle: "0f0e", share: secret.New("12345678901234567890123456789012")}
	full.user = user.user
	full.epochs, full.delegation, full.actors, full.claims = epochs{1, 2, 258}, "dlg-1", []string{"wi-b", "wi-c"}, `{"groups":["a"]}`
	const head = "000102030405060708090a0b0c0d0e0f" + "0000018bcfe56800" + "0000018bcff323a0" + "0000000000000003" + "0006" + "77692d616263"
	const alice = "01" + "0011" + "68747470733a2f2f692e6578616d706c65" + "0005" + "616c696365"
	for name, c := range map[string]struct {
		body tokenBody
		hex  string
	}{
		"0x01": {base, "01" + head + "00" + "0000" + "0000"},
		"0x02": {user, "02" + head + alice + "0000018bcfe56418" + "0004" + "30663065" + "0020" + "3132333435363738393031323334353637383930313233343536373839303132"},
		"0x03": {full, "03" + head + alice + "0000000000000000" + "0000" + "0000" + "0000000000000001" + "0000000000000002" + "0000000000000102" +
			"0005" + "646c672d31" + "02" + "0004" + "77692d62" + "0004" + "77692d63" + "0010" + "7b2267726f757073223a5b2261225d7d"},
		"0x04": {signed, "04" + head + alice + "0000000000000000" + "0000" + "0000" + "0000000000000000" + "0000000000000000" + "0000000000000000" +
			"0000" + "00" + "0000" + "0004" + "30613162" + "0000000000000102"},
	} {
		if got := hex.EncodeToString(c.body.encode()); got != c.hex {
			t.Errorf("version %s: got %s, want %s", name, got, c.hex)
		}
		raw, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeTokenBody(raw)
		if err != nil {
			t.Errorf("version %s: %v", name, err)
		}
		opts := []cmp.Option{cmp.AllowUnexported(tokenBody{}, epochs{}, retained{}, signIn{}, proof{}), cmp.Comparer(func(a, b secret.Text) bool { return a.Equal(b) }), cmpopts.EquateEmpty()}
		if d := cmp.Diff(c.body, got, opts...); d != "" {
			t.Errorf("version %s (-want +got):\n%s", name, d)
		}
		for cut := range raw {
			if _, err := decodeTokenBody(raw[:cut]); !errors.Is(err, fault.Unauthenticated) {
				t.Errorf("version %s cut to %d bytes: got %v", name, cut, err)
			}
		}
		if _, err := decodeTokenBody(append(raw, 0)); !errors.Is(err, fault.Unauthenticated) {
			t.Errorf("version %s with a byte more: got %v", name, err)
		}
	}
}

// FuzzTokenBody: what decodes encodes to the same bytes, but for a 0x02 that says nothing, which is never written.
func FuzzTokenBody(f *testing.F) {
	f.Add(tokenBody{workload: "wi-a", user: User{Kind: UIDUser, Subject: "u"}}.encode())
	f.Add(tokenBody{workload: "wi-a", epochs: epochs{workload: 1}, actors: []string{"x"}}.encode())
	f.Add(tokenBody{workload: "wi-a", session: signIn{key: "k", epoch: 7}}.encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := decodeTokenBody(raw)
		if err != nil || raw[0] == tokenFormatRetained && b.authenticated.IsZero() && b.retained == nil {
			return
		}
		if again := b.encode(); !cmp.Equal(again, raw) {
			t.Errorf("%x was read and is written as %x", raw, again)
		}
	})
}
