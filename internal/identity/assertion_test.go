package identity_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// keptRows looks at the users' tokens that are kept, and says whether a provider exchanges them.
type keptRows struct {
	identity.Store
	rows      []identity.Assertion
	exchanges bool
	change    func(*identity.Assertion) // of what is read
}

func (k *keptRows) KeepAssertion(ctx context.Context, a identity.Assertion) error {
	k.rows = append(k.rows, a)
	return k.Store.KeepAssertion(ctx, a)
}

func (k *keptRows) Assertion(ctx context.Context, account access.Account, handle string) (identity.Assertion, error) {
	a, err := k.Store.Assertion(ctx, account, handle)
	if err == nil && k.change != nil {
		k.change(&a)
	}
	return a, err
}

func (k *keptRows) ExchangesUserTokens(context.Context, access.Account) (bool, error) {
	return k.exchanges, nil
}

// keepingWorld is a world with the issuer trusted, agent-a and agent-b, and a look at what is kept.
func keepingWorld(t *testing.T, change ...func(*identity.Issuer)) (*world, *keptRows) {
	t.Helper()
	var rows *keptRows
	w := newWorld(t, func(c *identity.Config) {
		rows = &keptRows{Store: c.Store}
		c.Store = rows
	})
	w.trust(change...)
	w.workload("agent-a", asserted())
	w.workload("agent-b", nil)
	return w, rows
}

func withUserInfo(i *identity.Issuer) { i.UserInfo = true }

// minted opens a new token of alice.
func (w *world) minted(jwt string) (identity.Token, identity.Workload) {
	w.t.Helper()
	m := ok(w.MintTokenForJWT(w.t.Context(), caller(access.Agent, "agent-*"), "agent-a", secret.New(jwt)))(w.t)
	return w.opened(m)
}

func (w *world) opened(m identity.Minted) (identity.Token, identity.Workload) {
	w.t.Helper()
	tok, wl, err := w.OpenToken(w.t.Context(), account, m.Token)
	must(w.t, err)
	return tok, wl
}

func TestRetainedToken(t *testing.T) {
	w, rows := keepingWorld(t)
	rows.exchanges = true
	logged := w.clock.now().Add(-time.Minute)
	jwt := w.jwt(map[string]any{"auth_time": logged.Unix(), "exp": w.clock.now().Add(5 * time.Minute).Unix()})
	tok, wl := w.minted(jwt)
	if !tok.Retains() || !tok.AuthTime.Equal(logged) {
		t.Fatalf("got a token that retains: %t, of a login at %v", tok.Retains(), tok.AuthTime)
	}
	if got := ok(w.RetainedToken(t.Context(), tok, wl))(t); got.Expose() != jwt {
		t.Error("what was kept is not the user's token")
	}
	if len(rows.rows) != 1 || !rows.rows[0].Expires.Equal(tok.Expires) || !tok.Expires.Equal(w.clock.now().Add(5*time.Minute)) {
		t.Errorf("got %d rows, expiry %v; want one that ends with the workload access token at %v", len(rows.rows), rows.rows[0].Expires, tok.Expires)
	}
	w.clock.add(5 * time.Minute)
	if n := ok(w.SweepAssertions(t.Context()))(t); n != 1 {
		t.Errorf("swept %d, want 1", n)
	}
	_, err := w.RetainedToken(t.Context(), tok, wl)
	wantCode(t, "after the sweep", err, fault.Invalid)
}

// Whoever has the database and the key service gets from the row a ciphertext whose key is made from 32 random bytes
// that are in the workload access token only.
func TestB13_RowOpenedByTheVaultIsStillSealed(t *testing.T) {
	w, rows := keepingWorld(t)
	rows.exchanges = true
	jwt := w.jwt(nil)
	tok, wl := w.minted(jwt)
	if len(rows.rows) != 1 {
		t.Fatalf("got %d rows, want 1", len(rows.rows))
	}
	a := rows.rows[0]
	ref := vault.Ref{Account: account, Table: "user_assertions", Column: "sealed", Key: a.Handle, Workload: a.Workload, User: a.UserRef}
	inner := ok(w.vault.Open(t.Context(), ref, a.Sealed))(t).Expose()
	parts := strings.Split(jwt, ".")
	claims := ok(base64.RawURLEncoding.DecodeString(parts[1]))(t)
	for _, plain := range append(parts, "alice", string(claims)) {
		if strings.Contains(inner, plain) || strings.Contains(string(a.Sealed), plain) {
			t.Errorf("the row shows %.20q with the vault's keys alone", plain)
		}
	}
	if len(inner) != len(jwt)+28 {
		t.Errorf("got %d bytes inside, want nonce, ciphertext and tag: %d", len(inner), len(jwt)+28)
	}
	for name, key := range map[string][]byte{"zeros": make([]byte, 32), "a guess": random32()} {
		block := ok(aes.NewCipher(key))(t)
		box := ok(cipher.NewGCMWithRandomNonce(block))(t)
		if _, err := box.Open(nil, nil, []byte(inner), nil); err == nil {
			t.Errorf("%s opens it", name)
		}
	}
	// Another token of the same agent and user has another share.
	second, _ := w.minted(jwt)
	first, other := rows.rows[0], rows.rows[1]
	rows.change = func(a *identity.Assertion) {
		if a.Handle == other.Handle {
			a.Sealed = first.Sealed
		}
	}
	_, err := w.RetainedToken(t.Context(), second, wl)
	wantCode(t, "one row's value in another row", err, fault.Internal)
	rows.change = nil
	ok(w.RetainedToken(t.Context(), tok, wl))(t)
}

// The share is the key: the token of one login does not open what is kept for another of the same agent and user, even
// if its whole row stands in the place of the other.
func TestB13_OnlyItsOwnShareOpens(t *testing.T) {
	w, rows := keepingWorld(t)
	rows.exchanges = true
	jwt := w.jwt(nil)
	_, _ = w.minted(jwt)
	second, wl := w.minted(jwt)
	first := rows.rows[0]
	rows.change = func(a *identity.Assertion) { *a = first }
	got, err := w.RetainedToken(t.Context(), second, wl)
	wantCode(t, "another share", err, fault.Internal)
	if !got.IsZero() {
		t.Error("a share opens what it was not made for")
	}
}

func random32() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return b
}

func TestB14_RetainedTokenIsCheckedWhenUsed(t *testing.T) {
	for name, c := range map[string]struct {
		after func(w *world, rows *keptRows)
		want  fault.Code
	}{
		"expired": {func(w *world, _ *keptRows) { w.clock.add(10 * time.Minute) }, fault.Invalid},
		"issuer no longer trusted": {func(w *world, _ *keptRows) {
			must(w.t, w.DeleteIssuer(w.t.Context(), w.root, issuerURL))
		}, fault.Unauthenticated},
		"issuer trusted for another audience": {func(w *world, _ *keptRows) {
			must(w.t, w.DeleteIssuer(w.t.Context(), w.root, issuerURL))
			w.trust(func(i *identity.Issuer) { i.Audiences = []string{"another"} })
		}, fault.Unauthenticated},
		"issuer trusted for another agent": {func(w *world, _ *keptRows) {
			must(w.t, w.DeleteIssuer(w.t.Context(), w.root, issuerURL))
			w.trust(func(i *identity.Issuer) { i.Workloads = []string{"agent-b"} })
		}, fault.Unauthenticated},
		"issuer that names the user by another claim": {func(w *world, _ *keptRows) {
			must(w.t, w.DeleteIssuer(w.t.Context(), w.root, issuerURL))
			w.trust(func(i *identity.Issuer) { i.SubjectClaim = "jti" })
		}, fault.Unauthenticated},
		"row of another agent": {func(_ *world, rows *keptRows) {
			rows.change = func(a *identity.Assertion) { a.Workload = "wi-other" }
		}, fault.Internal},
		"row of another user": {func(_ *world, rows *keptRows) {
			rows.change = func(a *identity.Assertion) { a.UserRef = strings.Repeat("0", 64) }
		}, fault.Internal},
		"row that says it lives longer": {func(w *world, rows *keptRows) {
			rows.change = func(a *identity.Assertion) { a.Expires = a.Expires.Add(time.Hour) }
			w.clock.add(10 * time.Minute)
		}, fault.Unauthenticated},
		"gone": {func(w *world, _ *keptRows) {
			if n := ok(w.db.SweepAssertions(w.t.Context(), w.clock.now().Add(time.Hour), 10))(w.t); n != 1 {
				w.t.Errorf("swept %d rows", n)
			}
		}, fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			w, rows := keepingWorld(t)
			w.t = t
			rows.exchanges = true
			tok, wl := w.minted(w.jwt(map[string]any{"exp": w.clock.now().Add(5 * time.Minute).Unix(), "jti": "another-name"}))
			c.after(w, rows)
			jwt, err := w.RetainedToken(t.Context(), tok, wl)
			wantCode(t, name, err, c.want)
			if !jwt.IsZero() {
				t.Error("the token came with the refusal")
			}
		})
	}
	w, rows := keepingWorld(t)
	rows.exchanges = true
	tok, _ := w.minted(w.jwt(nil))
	b := ok(w.db.Workload(t.Context(), account, "agent-b"))(t)
	_, err := w.RetainedToken(t.Context(), tok, b)
	wantCode(t, "another agent", err, fault.Internal)
}

func TestB15_TokenIsNotKeptForNothing(t *testing.T) {
	w, rows := keepingWorld(t)
	tok, wl := w.minted(w.jwt(nil))
	if len(rows.rows) != 0 || tok.Retains() {
		t.Fatalf("kept %d users' tokens though nobody uses them", len(rows.rows))
	}
	_, err := w.RetainedToken(t.Context(), tok, wl)
	wantCode(t, "nothing kept", err, fault.Invalid)
	rows.exchanges = true // for a token that was minted before, nothing changes
	_, err = w.RetainedToken(t.Context(), tok, wl)
	wantCode(t, "minted before", err, fault.Invalid)
	for name, mint := range w.mints() {
		m := ok(mint(caller(access.Agent, "agent-*"), "agent-a"))(t)
		if tok, _ := w.opened(m); tok.Retains() != (name == "for a JWT") {
			t.Errorf("%s: retains is %t", name, tok.Retains())
		}
	}
	if len(rows.rows) != 1 {
		t.Errorf("kept %d, want the one of the JWT", len(rows.rows))
	}
	_, err = w.MintTokenForJWT(t.Context(), caller(access.Agent, "agent-*"), "agent-a", secret.New(w.jwt(map[string]any{"aud": "another"})))
	wantCode(t, "a token that is refused", err, fault.Unauthenticated)
	if len(rows.rows) != 1 {
		t.Error("a token that was refused was kept")
	}
	w, rows = keepingWorld(t, withUserInfo)
	if tok, _ = w.minted(w.jwt(nil)); len(rows.rows) != 1 || !tok.Retains() {
		t.Error("the token of an issuer with userinfo was not kept")
	}
}
