package vault_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strconv"
	"testing"

	"github.com/tabard-id/tabard/internal/vault"
)

// A second implementation of docs/format.md, from the standard library alone: it keeps the document true, and would
// read a database after this code is gone.

// fields is the encoding of associated data.
func fields(values ...string) []byte {
	b := []byte{1}
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}
	return b
}

// refData is the associated data of a record.
func refData(r vault.Ref) []byte {
	generation := string(binary.BigEndian.AppendUint64(nil, uint64(r.Generation)))
	return fields(string(r.Account), r.Table, r.Column, r.Key, r.Workload, r.User, r.Provider, generation, r.Identity)
}

// xaes is XAES-256-GCM (c2sp.org/XAES-256-GCM): the AEAD for one nonce.
func xaes(key, nonce []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	k1 := make([]byte, 16)
	block.Encrypt(k1, k1)
	var carry byte
	for i := 15; i >= 0; i-- {
		k1[i], carry = k1[i]<<1|carry, k1[i]>>7
	}
	k1[15] ^= carry * 0x87
	derived := make([]byte, 32)
	for i := range 2 {
		m := append([]byte{0, byte(i + 1), 'X', 0}, nonce[:12]...)
		for j := range m {
			m[j] ^= k1[j]
		}
		block.Encrypt(derived[16*i:], m)
	}
	inner, err := aes.NewCipher(derived)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(inner)
	if err != nil {
		panic(err)
	}
	return a
}

func xaesSeal(key, nonce, plain, associated []byte) []byte {
	return xaes(key, nonce).Seal(append([]byte(nil), nonce...), nonce[12:], plain, associated)
}

func xaesOpen(key, sealed, associated []byte) ([]byte, error) {
	if len(sealed) < 40 {
		return nil, errors.New("short")
	}
	return xaes(key, sealed[:24]).Open(nil, sealed[12:24], sealed[24:], associated)
}

// openSealed opens a Sealed, or what the server sealed.
func openSealed(ring map[uint32][]byte, sealed, associated []byte) ([]byte, error) {
	if len(sealed) < 6 || sealed[0] != 1 || sealed[1] != 1 {
		return nil, errors.New("prefix")
	}
	key, ok := ring[binary.BigEndian.Uint32(sealed[2:6])]
	if !ok {
		return nil, errors.New("key id")
	}
	return xaesOpen(key, sealed[6:], associated)
}

// readKeyset opens a keyset of a row and returns its keys by id.
func readKeyset(t testing.TB, vaultKey []byte, r vault.Row, purpose string, sealed []byte) map[uint32][]byte {
	t.Helper()
	plain, err := xaesOpen(vaultKey, message(t, sealed)[2].one(t), fields(string(r.Account), r.Name, purpose))
	if err != nil {
		t.Fatalf("keyset %s: %v", purpose, err)
	}
	ring := make(map[uint32][]byte)
	for _, k := range message(t, plain)[2].bytes {
		key := message(t, k)
		data := message(t, key[1].one(t))
		ring[uint32(key[3].number)] = message(t, data[2].one(t))[3].one(t) // key_value of XAesGcmKey, and of HmacPrfKey
	}
	return ring
}

// unwrap asks the key service for the key of a row.
func unwrap(t testing.TB, f fixture, r vault.Row) []byte {
	t.Helper()
	arn := "arn:aws:bedrock-agentcore:" + region + ":" + string(r.Account) + ":token-vault/" + r.Name
	if r.Account == vault.Server {
		arn = "arn:aws:bedrock-agentcore:" + region + ":server:vault"
	}
	key, err := f.keys.aead().Open(nil, nil, r.Wrapped, []byte(arn))
	if err != nil {
		t.Fatalf("unwrap %s: %v", arn, err)
	}
	return key
}

// field is what a protocol buffer holds under one number.
type field struct {
	bytes  [][]byte
	number uint64
}

func (f field) one(t testing.TB) []byte {
	t.Helper()
	if len(f.bytes) != 1 {
		t.Fatalf("a field occurs %d times, want once", len(f.bytes))
	}
	return f.bytes[0]
}

// message reads a protocol buffer of varints and byte strings.
func message(t testing.TB, b []byte) map[int]field {
	t.Helper()
	m := make(map[int]field)
	varint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			t.Fatalf("a protocol buffer breaks off at %s", strconv.Quote(string(b)))
		}
		b = b[n:]
		return v
	}
	for len(b) > 0 {
		tag := varint()
		f := m[int(tag>>3)]
		v := varint()
		if tag&7 == 2 {
			if uint64(len(b)) < v {
				t.Fatal("a protocol buffer breaks off")
			}
			f.bytes, b = append(f.bytes, b[:v]), b[v:]
		} else {
			f.number = v
		}
		m[int(tag>>3)] = f
	}
	return m
}

func TestFormat_SecondImplementationReadsTheFirst(t *testing.T) {
	f := newFixture(t)
	sealed := f.seal(t, ref(), "token")
	r := f.rows.row(t, ref().Account, "default")
	got, err := openSealed(readKeyset(t, unwrap(t, f, r), r, "records", r.Keysets["records"]), sealed, refData(ref()))
	if err != nil || string(got) != "token" {
		t.Errorf("a record: %q, %v", got, err)
	}

	token, err := f.SealServer(t.Context(), vault.RingTokens, []byte("aad"), []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	s := f.rows.row(t, vault.Server, "server")
	ring := readKeyset(t, unwrap(t, f, s), s, string(vault.RingTokens), s.Keysets[string(vault.RingTokens)])
	got, err = openSealed(ring, token, fields(string(vault.RingTokens), "aad"))
	if err != nil || string(got) != "body" {
		t.Errorf("a token: %q, %v", got, err)
	}

	user, err := f.UserRef(t.Context(), []byte("alice"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range readKeyset(t, unwrap(t, f, s), s, string(vault.RingUserRefs), s.Keysets[string(vault.RingUserRefs)]) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("alice"))
		if !hmac.Equal(mac.Sum(nil), user) {
			t.Errorf("a user reference: got %x, want %x", user, mac.Sum(nil))
		}
	}
}
