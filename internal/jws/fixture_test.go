package jws_test

import (
	"encoding/json"
	"maps"
	"sync"
	"testing"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

var keypairs = sync.OnceValue(jwstest.NewKeys)

// desk reads tokens and verifies them with one set.
type desk struct {
	t testing.TB
	jwstest.Keys
	set jws.Set
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	d := &desk{t: t, Keys: keypairs()}
	d.set = ok(jws.ParseSet(d.Keys.Set(t)))(t)
	return d
}

// publish replaces the set.
func (d *desk) publish(keys ...map[string]any) {
	d.t.Helper()
	d.set = ok(jws.ParseSet(jwstest.Set(d.t, keys...)))(d.t)
}

func parse(token string) (jws.Token, error) { return jws.Parse("the token", secret.New(token)) }

func (d *desk) verify(token string) error {
	t, err := parse(token)
	if err != nil {
		return err
	}
	return t.Verify(d.set)
}

func (d *desk) accepted(name, token string) {
	d.t.Helper()
	if err := d.verify(token); err != nil {
		d.t.Errorf("%s: got %v, want it accepted", name, err)
	}
}

// unread wants the token to be turned away before any key is looked for.
func (d *desk) unread(name, token string) {
	d.t.Helper()
	_, err := parse(token)
	wantCode(d.t, name, err, fault.Unauthenticated)
}

// unverified wants the token to be read, and turned away by the set.
func (d *desk) unverified(name, token string) {
	d.t.Helper()
	t, err := parse(token)
	if err != nil {
		d.t.Errorf("%s: got %v, want it read", name, err)
		return
	}
	wantCode(d.t, name, t.Verify(d.set), fault.Unauthenticated)
}

// good returns claims, changed.
func good(change map[string]any) map[string]any {
	c := map[string]any{"iss": "https://idp.example.com", "sub": "alice", "aud": "tabard", "exp": 2_000_000_000}
	maps.Copy(c, change)
	return c
}

// sign signs good claims with RS256 and a changed header.
func (d *desk) sign(header map[string]any) string {
	d.t.Helper()
	h := map[string]any{"kid": "rsa"}
	maps.Copy(h, header)
	return jwstest.Sign(d.t, "RS256", h, good(nil), d.RSA)
}

func text(t testing.TB, v any) string {
	t.Helper()
	return string(ok(json.Marshal(v))(t))
}

func wantCode(t testing.TB, name string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want code %s", name, err, code)
	}
}

// ok returns v, and fails the test where there is an error: ok(f())(t).
func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
