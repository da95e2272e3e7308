package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

func TestNew_NeedsItsParts(t *testing.T) {
	whole := vault.Config{Store: &rows{}, Wrapper: &keyService{}, Region: region}
	if _, err := vault.New(whole); err != nil {
		t.Fatalf("New: %v", err)
	}
	for name, c := range map[string]vault.Config{
		"Store":   {Wrapper: whole.Wrapper, Region: region},
		"Wrapper": {Store: whole.Store, Region: region},
		"Region":  {Store: whole.Store, Wrapper: whole.Wrapper},
	} {
		if _, err := vault.New(c); err == nil {
			t.Errorf("without %s: New gave no error", name)
		}
	}
}

func TestSeal_RoundTrip(t *testing.T) {
	f := newFixture(t)
	// A second replica reads what the first sealed.
	other := newVault(t, f.rows, f.keys, f.clock.Now)
	for _, text := range []string{"", "x", "ya29.token", "\x00\xff", strings.Repeat("long ", 20_000)} {
		sealed := f.seal(t, ref(), text)
		if len(sealed) == 0 || sealed[0] != 1 || sealed[1] != 1 || len(sealed) != len(text)+46 {
			t.Fatalf("sealing %d bytes gave %d, beginning %x; want 46 more, beginning 0101", len(text), len(sealed), sealed[:2])
		}
		for _, v := range []*vault.Vault{f.Vault, other} {
			got, err := v.Open(t.Context(), ref(), sealed)
			if err != nil || got.Expose() != text {
				t.Errorf("Open of %d bytes = %d bytes, %v", len(text), len(got.Expose()), err)
			}
		}
	}
	if a, b := f.seal(t, ref(), "same"), f.seal(t, ref(), "same"); bytes.Equal(a, b) {
		t.Error("the same text sealed twice gave the same bytes")
	}
}

func TestSeal_RefusesWhatHasNoVault(t *testing.T) {
	f := newFixture(t)
	for _, account := range []access.Account{"", vault.Server} {
		if _, err := f.Seal(t.Context(), vault.Ref{Account: account}, secret.New("x")); !errors.Is(err, fault.Internal) {
			t.Errorf("Seal for account %q: got %v, want internal", account, err)
		}
	}
	if len(f.rows.m) != 0 {
		t.Errorf("it made %d vaults", len(f.rows.m))
	}
}

func TestOpen_MakesNoVault(t *testing.T) {
	f, g := newFixture(t), newFixture(t)
	got, err := g.Open(t.Context(), ref(), f.seal(t, ref(), "x"))
	notOpened(t, "no vault", got, err)
	if len(g.rows.m) != 0 || g.keys.wraps.Load() != 0 {
		t.Errorf("Open made %d vaults and %d calls", len(g.rows.m), g.keys.wraps.Load())
	}
}

func TestOpen_NewerVersionSaysSo(t *testing.T) {
	f := newFixture(t)
	sealed := f.seal(t, ref(), "x")
	sealed[0] = 2
	if _, err := f.Open(t.Context(), ref(), sealed); !errors.Is(err, fault.Internal) || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("Open: got %v, want internal, sealed by a newer version", err)
	}
}

func TestD01_EveryFieldOfRefIsBound(t *testing.T) {
	f := newFixture(t)
	sealed := map[string]vault.Sealed{"": f.seal(t, ref(), "of the first")}
	refs := variants(t, ref())
	refs[""] = ref()
	for name, r := range refs {
		sealed[name] = f.seal(t, r, "of "+name)
	}
	for from, s := range sealed {
		for to, r := range refs {
			got, err := f.Open(t.Context(), r, s)
			if from == to {
				if err != nil || got.Expose() != "of "+from {
					t.Errorf("%q does not open where it belongs: %v", from, err)
				}
				continue
			}
			notOpened(t, fmt.Sprintf("sealed as %q, opened as %q", from, to), got, err)
		}
	}
}

// Bytes may not wander from one field to the next: the property holds for random Refs over a tiny alphabet, which
// collide often if they can.
func TestD01_NoTwoRefsShareAssociatedData(t *testing.T) {
	f := newFixture(t)
	const seed = 2026
	random := rand.New(rand.NewPCG(seed, seed))
	alphabet := []string{"", "a", "b", "ab", "a\x00", "\x00", "\x00\x00\x00\x01a", "\x00\x00\x00\x00"}
	var refs []vault.Ref
	for range 120 {
		r := vault.Ref{Account: "000000000000", Generation: int64(random.IntN(3) - 1)}
		value := reflect.ValueOf(&r).Elem()
		for i := range value.NumField() {
			if field := value.Field(i); field.Kind() == reflect.String && i > 0 {
				field.SetString(alphabet[random.IntN(len(alphabet))])
			}
		}
		refs = append(refs, r)
	}
	sealed := make([]vault.Sealed, len(refs))
	for i, r := range refs {
		sealed[i] = f.seal(t, r, "x")
	}
	for i := range refs {
		for j, r := range refs {
			if _, err := f.Open(t.Context(), r, sealed[i]); (err == nil) != (refs[i] == refs[j]) {
				t.Errorf("sealed as %+v, opened as %+v: %v", refs[i], r, err)
			}
		}
	}
}

// Nor may they wander to the neighbour, where every field is filled: the lengths are what tells "ab", "c" from "a",
// "bc".
func TestD01_FieldsHaveTheirLengths(t *testing.T) {
	f := newFixture(t)
	fields := []string{"Table", "Column", "Key", "Workload", "User", "Provider"} // one after the other
	for i := range len(fields) - 1 {
		r, moved := ref(), ref()
		one, two := reflect.ValueOf(&r).Elem(), reflect.ValueOf(&moved).Elem()
		one.FieldByName(fields[i]).SetString("ab")
		one.FieldByName(fields[i+1]).SetString("c")
		two.FieldByName(fields[i]).SetString("a")
		two.FieldByName(fields[i+1]).SetString("bc")
		got, err := f.Open(t.Context(), moved, f.seal(t, r, "x"))
		notOpened(t, fields[i]+" and "+fields[i+1], got, err)
	}
}

func TestD02_RowsShowNothing(t *testing.T) {
	f := newFixture(t)
	const canary = "canary-d02-9f4c1e7a"
	sealed := f.seal(t, ref(), canary)
	server, err := f.SealServer(t.Context(), vault.RingAccessKeys, []byte("AKIA"), []byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	seen := slicesOf(sealed, server)
	for _, r := range f.rows.m {
		seen = append(seen, r.Wrapped)
		for _, k := range r.Keysets {
			seen = append(seen, k)
		}
	}
	hidden := [][]byte{[]byte(canary)}
	for _, r := range f.rows.m {
		vaultKey := unwrap(t, f, r)
		hidden = append(hidden, vaultKey)
		for purpose, k := range r.Keysets {
			for _, key := range readKeyset(t, vaultKey, r, purpose, k) {
				hidden = append(hidden, key)
			}
		}
	}
	if len(hidden) != 1+2+6 {
		t.Fatalf("found %d secrets to look for, want 9", len(hidden))
	}
	for _, s := range seen {
		for _, h := range hidden {
			if bytes.Contains(s, h) {
				t.Errorf("a stored value holds a secret in the clear: %x", s)
			}
		}
	}
}

func TestB04_DamagedRecordsGiveOneError(t *testing.T) {
	f := newFixture(t)
	sealed := f.seal(t, ref(), "token")
	calls := f.keys.unwraps.Load()
	for i := 1; i < len(sealed); i++ { // byte 0 is the version
		changed := bytes.Clone(sealed)
		changed[i] ^= 0x40
		got, err := f.Open(t.Context(), ref(), changed)
		notOpened(t, fmt.Sprintf("byte %d changed", i), got, err)
	}
	for i := range sealed {
		got, err := f.Open(t.Context(), ref(), sealed[:i])
		notOpened(t, fmt.Sprintf("cut to %d bytes", i), got, err)
	}
	got, err := f.Open(t.Context(), ref(), append(bytes.Clone(sealed), 0))
	notOpened(t, "a byte more", got, err)
	// What is too short is refused before the key is fetched.
	f.clock.add(vault.KeyLife)
	got, err = f.Open(t.Context(), ref(), sealed[:45])
	notOpened(t, "too short", got, err)
	if now := f.keys.unwraps.Load(); now != calls {
		t.Errorf("damaged values caused %d calls to the key service", now-calls)
	}
}

func FuzzOpen(f *testing.F) {
	x := newFixture(f)
	sealed := x.seal(f, ref(), "token")
	f.Add([]byte(sealed))
	f.Add([]byte(nil))
	f.Add([]byte{2})
	f.Add([]byte(sealed[:46]))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := x.Open(t.Context(), ref(), b)
		switch {
		case bytes.Equal(b, sealed):
			if err != nil || got.Expose() != "token" {
				t.Errorf("Open = %q, %v", got.Expose(), err)
			}
		case len(b) > 0 && b[0] != 1:
			if !errors.Is(err, fault.Internal) || !got.IsZero() {
				t.Errorf("Open of version %d = %q, %v", b[0], got.Expose(), err)
			}
		default:
			notOpened(t, "fuzz", got, err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	f := newFixture(b)
	text := secret.New(strings.Repeat("x", 1024))
	b.ReportAllocs()
	b.SetBytes(1024)
	for b.Loop() {
		if _, err := f.Seal(b.Context(), ref(), text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	f := newFixture(b)
	sealed := f.seal(b, ref(), strings.Repeat("x", 1024))
	b.ReportAllocs()
	b.SetBytes(1024)
	for b.Loop() {
		if _, err := f.Open(b.Context(), ref(), sealed); err != nil {
			b.Fatal(err)
		}
	}
}

func slicesOf(s ...[]byte) [][]byte { return s }
