package vault_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/vault"
)

// A change of the format adds a file: go test ./internal/vault -run Vectors -make-vectors testdata/vectors/v2.json
var makeVectors = flag.String("make-vectors", "", "write new vectors to this file, which must not exist")

// vectors is one file of testdata/vectors. Its vault keys are wrapped by the key service of these tests: AES-256-GCM
// with 32 bytes of 0x09 as the key, nonce first, and the vault's ARN as associated data.
type vectors struct {
	Region  string
	Vaults  []vaultVector
	Records []recordVector
	Tokens  []serverVector
	Users   []userVector
}

type vaultVector struct {
	Account access.Account
	Name    string
	Wrapped string            // hexadecimal, like everything below that is not text
	Keysets map[string]string // by purpose
}

type recordVector struct {
	Ref    vault.Ref
	Text   string
	Sealed string
}

type serverVector struct {
	Ring      vault.Ring
	AAD       string
	Plaintext string
	Sealed    string
}

type userVector struct{ Data, Ref string }

// TestVectors opens everything that any version sealed. The files are never changed, only added to.
func TestVectors(t *testing.T) {
	if *makeVectors != "" {
		writeVectors(t, *makeVectors)
	}
	files, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var all vectors
			if err := json.Unmarshal(content, &all); err != nil {
				t.Fatal(err)
			}
			if len(all.Vaults) == 0 || len(all.Records) == 0 || len(all.Tokens) == 0 || len(all.Users) == 0 {
				t.Fatal("a kind of vector is missing")
			}
			openVectors(t, all)
		})
	}
}

// openVectors opens them with this package and with the second implementation.
func openVectors(t *testing.T, all vectors) {
	t.Helper()
	f := newFixture(t)
	for _, r := range all.Vaults {
		row := vault.Row{Account: r.Account, Name: r.Name, KeyURI: "test:key", Wrapped: unhex(t, r.Wrapped), Keysets: map[string][]byte{}, Version: 1}
		for purpose, k := range r.Keysets {
			row.Keysets[purpose] = unhex(t, k)
		}
		f.rows.put(row)
	}
	ring := func(account access.Account, name, purpose string) map[uint32][]byte {
		r := f.rows.row(t, account, name)
		return readKeyset(t, unwrap(t, f, r), r, purpose, r.Keysets[purpose])
	}
	for i, r := range all.Records {
		sealed := unhex(t, r.Sealed)
		if got, err := f.Open(t.Context(), r.Ref, sealed); err != nil || got.Expose() != r.Text {
			t.Errorf("record %d: Open = %q, %v; want %q", i, got.Expose(), err, r.Text)
		}
		if got, err := openSealed(ring(r.Ref.Account, "default", "records"), sealed, refData(r.Ref)); err != nil || string(got) != r.Text {
			t.Errorf("record %d, second implementation: %q, %v; want %q", i, got, err, r.Text)
		}
	}
	for i, s := range all.Tokens {
		sealed := unhex(t, s.Sealed)
		if got, err := f.OpenServer(t.Context(), s.Ring, []byte(s.AAD), sealed); err != nil || string(got) != s.Plaintext {
			t.Errorf("server value %d: OpenServer = %q, %v; want %q", i, got, err, s.Plaintext)
		}
		if got, err := openSealed(ring(vault.Server, "server", string(s.Ring)), sealed, fields(string(s.Ring), s.AAD)); err != nil || string(got) != s.Plaintext {
			t.Errorf("server value %d, second implementation: %q, %v; want %q", i, got, err, s.Plaintext)
		}
	}
	for _, u := range all.Users {
		if got, err := f.UserRef(t.Context(), []byte(u.Data)); err != nil || !bytes.Equal(got, unhex(t, u.Ref)) {
			t.Errorf("user %q: UserRef = %x, %v; want %s", u.Data, got, err, u.Ref)
		}
	}
}

// writeVectors seals one value of every kind with this version.
func writeVectors(t *testing.T, file string) {
	t.Helper()
	f := newFixture(t)
	all := vectors{Region: region}
	refs := variants(t, ref())
	refs["whole"], refs["bare"] = ref(), vault.Ref{Account: "000000000000"}
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		for _, text := range []string{"", "text of " + name, strings.Repeat("ü", 500)} {
			all.Records = append(all.Records, recordVector{refs[name], text, hex.EncodeToString(f.seal(t, refs[name], text))})
		}
	}
	for _, ring := range []vault.Ring{vault.RingTokens, vault.RingAccessKeys, vault.RingSigning} {
		for _, plain := range []string{"", "body"} {
			sealed, err := f.SealServer(t.Context(), ring, []byte("aad"), []byte(plain))
			if err != nil {
				t.Fatal(err)
			}
			all.Tokens = append(all.Tokens, serverVector{ring, "aad", plain, hex.EncodeToString(sealed)})
		}
	}
	for _, data := range []string{"", "alice"} {
		r, err := f.UserRef(t.Context(), []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		all.Users = append(all.Users, userVector{data, hex.EncodeToString(r)})
	}
	for _, r := range f.rows.m {
		v := vaultVector{r.Account, r.Name, hex.EncodeToString(r.Wrapped), map[string]string{}}
		for purpose, k := range r.Keysets {
			v.Keysets[purpose] = hex.EncodeToString(k)
		}
		all.Vaults = append(all.Vaults, v)
	}
	content, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(append(content, '\n')); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What was sealed before the row's times, versions and key URI changed still opens: none of them is bound.
func TestVectors_RowMetadataIsFree(t *testing.T) {
	f := newFixture(t)
	sealed := f.seal(t, ref(), "x")
	r := f.rows.row(t, ref().Account, "default")
	r.KeyURI, r.Version, r.Created, r.Modified = "file:00000000", 99, time.Time{}, time.Time{}
	f.rows.put(r)
	f.clock.add(vault.KeyLife)
	if got, err := f.Open(t.Context(), ref(), sealed); err != nil || got.Expose() != "x" {
		t.Errorf("Open: %v", err)
	}
}
