package vault_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"maps"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

const region = "us-east-1"

// rows is a vault.Store in memory.
type rows struct {
	mu   sync.Mutex
	m    map[[2]string]vault.Row
	down atomic.Bool
}

func (s *rows) VaultRow(_ context.Context, account access.Account, name string) (vault.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down.Load() {
		return vault.Row{}, fault.New(fault.Unavailable, "the store is down")
	}
	r, ok := s.m[[2]string{string(account), name}]
	if !ok {
		return vault.Row{}, fault.New(fault.NotFound, "no such vault")
	}
	r.Keysets = maps.Clone(r.Keysets)
	return r, nil
}

func (s *rows) CreateVaultRow(_ context.Context, r vault.Row) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.m[[2]string{string(r.Account), r.Name}]; ok {
		return fault.New(fault.Conflict, "the vault exists")
	}
	s.putLocked(r)
	return nil
}

func (s *rows) SwapVaultRow(_ context.Context, r vault.Row, oldVersion int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[[2]string{string(r.Account), r.Name}].Version != oldVersion {
		return fault.New(fault.Conflict, "the vault changed")
	}
	s.putLocked(r)
	return nil
}

func (s *rows) putLocked(r vault.Row) {
	if s.m == nil {
		s.m = make(map[[2]string]vault.Row)
	}
	s.m[[2]string{string(r.Account), r.Name}] = r
}

// row and put are the hand of somebody who may write to the database.
func (s *rows) row(t testing.TB, account access.Account, name string) vault.Row {
	t.Helper()
	r, err := s.VaultRow(t.Context(), account, name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *rows) put(r vault.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(r)
}

// keyService is a vault.Wrapper that counts, fails on demand and can be held up.
type keyService struct {
	wraps, unwraps atomic.Int64
	fail           atomic.Pointer[fault.Error]
	hold           chan struct{} // where set, Unwrap waits until it is closed
}

func (w *keyService) aead() cipher.AEAD {
	block, err := aes.NewCipher(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return a
}

func (w *keyService) URI() string { return "test:key" }

func (w *keyService) Wrap(_ context.Context, context, key []byte) ([]byte, error) {
	w.wraps.Add(1)
	if err := w.fail.Load(); err != nil {
		return nil, err
	}
	return w.aead().Seal(nil, nil, key, context), nil
}

func (w *keyService) Unwrap(ctx context.Context, context, wrapped []byte) ([]byte, error) {
	w.unwraps.Add(1)
	if w.hold != nil {
		select {
		case <-w.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := w.fail.Load(); err != nil {
		return nil, err
	}
	key, err := w.aead().Open(nil, nil, wrapped, context)
	if err != nil {
		return nil, fault.New(fault.Denied, "wrapped under another context")
	}
	return key, nil
}

// clock is a time that tests move.
type clock struct{ t atomic.Int64 }

func (c *clock) Now() time.Time      { return time.Unix(1_800_000_000, c.t.Load()) }
func (c *clock) add(d time.Duration) { c.t.Add(int64(d)) }
func newVault(t testing.TB, s *rows, w *keyService, now func() time.Time) *vault.Vault {
	t.Helper()
	v, err := vault.New(vault.Config{Store: s, Wrapper: w, Region: region, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// fixture is a vault with all that is under it.
type fixture struct {
	*vault.Vault
	rows  *rows
	keys  *keyService
	clock *clock
}

func newFixture(t testing.TB) fixture {
	t.Helper()
	f := fixture{rows: &rows{}, keys: &keyService{}, clock: &clock{}}
	f.Vault = newVault(t, f.rows, f.keys, f.clock.Now)
	return f
}

// seal seals text under ref or ends the test.
func (f fixture) seal(t testing.TB, ref vault.Ref, text string) vault.Sealed {
	t.Helper()
	s, err := f.Seal(t.Context(), ref, secret.New(text))
	if err != nil {
		t.Fatalf("Seal(%+v): %v", ref, err)
	}
	return s
}

// ref is a Ref in which every field has a value of its own.
func ref() vault.Ref {
	return vault.Ref{
		Account:    "000000000000",
		Table:      "connection",
		Column:     "refresh_token",
		Key:        "c-1",
		Workload:   "w-1",
		User:       "u-1",
		Provider:   "p-1",
		Generation: 7,
		Identity:   "i-1",
	}
}

// variants are Refs that differ from r in one field, for every field that Ref has or will have.
func variants(t testing.TB, r vault.Ref) map[string]vault.Ref {
	t.Helper()
	out := make(map[string]vault.Ref)
	for i := range reflect.TypeFor[vault.Ref]().NumField() {
		changed := r
		field := reflect.ValueOf(&changed).Elem().Field(i)
		name := reflect.TypeFor[vault.Ref]().Field(i).Name
		switch field.Kind() {
		case reflect.String:
			if name == "Account" {
				field.SetString("111111111111")
			} else {
				field.SetString(field.String() + "x")
			}
		case reflect.Int64:
			field.SetInt(field.Int() + 1)
		default:
			t.Fatalf("Ref.%s is a %s: teach this test to change it", name, field.Kind())
		}
		out[name] = changed
	}
	return out
}

// notOpened fails the test unless err is the one error of damaged values.
func notOpened(t testing.TB, what string, got secret.Text, err error) {
	t.Helper()
	const public = "a stored value does not open: it was changed, moved or sealed for another owner"
	if p := fault.Public(errOr(err)); p.Code != fault.Internal || p.Msg != public || !got.IsZero() {
		t.Errorf("%s: Open gave %q, %v; want internal: %s", what, got.Expose(), err, public)
	}
}

func errOr(err error) error {
	if err == nil {
		return fault.New("opened", "no error")
	}
	return err
}
