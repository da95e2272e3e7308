package identity_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestA22_UnknownKeysDoNotMultiplyFetches(t *testing.T) {
	w := newWorld(t)
	w.trust()
	unknown := make([]string, 50) // signed once each, used over and over
	for i := range unknown {
		unknown[i] = jwstest.Sign(t, "ES256", map[string]any{"kid": fmt.Sprintf("k%d", i)}, w.claims(nil), w.idp.EC)
	}
	var flood sync.WaitGroup
	for g := range 10 {
		flood.Go(func() {
			for i := range 1000 {
				if _, err := w.verify(unknown[(g+i)%len(unknown)]); !errors.Is(err, fault.Unauthenticated) {
					t.Errorf("got %v, want Unauthenticated", err)
				}
			}
		})
	}
	flood.Wait()
	if n := w.idp.fetches(); n > 2 {
		t.Errorf("got %d fetches for 10,000 unknown keys, want at most 2", n)
	}
	w.accepted("a good token meanwhile", w.jwt(nil))
	w.clock.add(29 * time.Second)
	w.refused("still cool", unknown[0], fault.Unauthenticated)
	if n := w.idp.fetches(); n != 2 {
		t.Errorf("got %d fetches before 30 s, want 2", n)
	}
	w.clock.add(2 * time.Second)
	w.refused("after 30 s", unknown[0], fault.Unauthenticated)
	if n := w.idp.fetches(); n != 3 {
		t.Errorf("got %d fetches after 30 s, want 3", n)
	}
}

func TestA23_ADocumentThatCannotBeUsed(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.idp.publish([]byte(`{"keys":[{"kty":"oct","k":"AAAA","kid":"rsa"}]}`), nil)
	_, err := w.verify(w.jwt(nil))
	wantCode(t, "a symmetric key only", err, fault.Unauthenticated)
	if msg, want := fault.Public(err).Msg, "the keys of the issuer "+issuerURL+" cannot be used"; msg != want {
		t.Errorf("got %q, want %q", msg, want)
	}
	w.idp.publish(w.idp.Set(t), nil)
	w.refused("at once again", w.jwt(nil), fault.Unauthenticated)
	w.clock.add(6 * time.Second)
	w.accepted("the issuer mended it", w.jwt(nil))
}

func TestA24_KeyRotation(t *testing.T) {
	w := newWorld(t)
	w.trust()
	old, next := w.jwt(nil), jwstest.Stranger(t)
	w.accepted("before", old)
	fresh := jwstest.Sign(t, "ES256", map[string]any{"kid": "next"}, w.claims(nil), next)
	both := jwstest.Set(t, jwstest.Key(t, "rsa", &w.idp.RSA.PublicKey, nil), jwstest.Key(t, "next", &next.PublicKey, nil))
	w.idp.publish(both, nil)
	var load sync.WaitGroup
	for range 20 {
		load.Go(func() {
			w.accepted("the new key, at once", fresh)
			w.accepted("the old key, still published", old)
		})
	}
	load.Wait()
	if n := w.idp.fetches(); n != 2 {
		t.Errorf("got %d fetches, want 2", n)
	}
	w.idp.publish(jwstest.Set(t, jwstest.Key(t, "next", &next.PublicKey, nil)), nil)
	w.clock.add(61 * time.Minute)
	w.refused("the old key, dropped", w.jwt(nil), fault.Unauthenticated)
	w.accepted("the new key", jwstest.Sign(t, "ES256", map[string]any{"kid": "next"}, w.claims(nil), next))
}

func TestA25_IssuerDown(t *testing.T) {
	down := fault.New(fault.Unavailable, "the issuer does not answer")
	w := newWorld(t)
	w.trust()
	doc := w.idp.doc
	w.idp.publish(nil, down)
	w.refused("never reached", w.jwt(nil), fault.Unavailable)
	w.refused("at once again", w.jwt(nil), fault.Unavailable)
	if n := w.idp.fetches(); n != 1 {
		t.Errorf("got %d fetches within 5 s, want 1", n)
	}
	w.idp.publish(doc, nil)
	w.clock.add(6 * time.Second)
	w.accepted("it is back", w.jwt(nil))

	w.idp.publish(nil, down)
	w.clock.add(23 * time.Hour)
	w.accepted("stale keys serve", w.jwt(nil))
	w.refused("a key that may be new", jwstest.Sign(t, "ES256", map[string]any{"kid": "new"}, w.claims(nil), w.idp.EC), fault.Unavailable)
	w.refused("a key that may be new, again", jwstest.Sign(t, "ES256", map[string]any{"kid": "new"}, w.claims(nil), w.idp.EC), fault.Unavailable)
	w.clock.add(61 * time.Minute)
	w.refused("stale for more than a day", w.jwt(nil), fault.Unavailable)
}

// A slow issuer costs one request its time; the others go on with the keys they have.
func TestKeys_OneFetchAtATime(t *testing.T) {
	w := newWorld(t)
	w.trust()
	w.accepted("first", w.jwt(nil))
	w.clock.add(2 * time.Hour)
	gate := make(chan struct{})
	w.idp.mu.Lock()
	w.idp.gate = gate
	w.idp.mu.Unlock()
	jwt := w.jwt(nil)
	done := make(chan error)
	go func() { _, err := w.verify(jwt); done <- err }()
	for w.idp.fetches() < 2 {
		time.Sleep(time.Millisecond)
	}
	w.accepted("while the fetch hangs", jwt)
	close(gate)
	must(t, <-done)
	if n := w.idp.fetches(); n != 2 {
		t.Errorf("got %d fetches, want 2", n)
	}
}

// The request that fetches may end: what it fetches is for everybody.
func TestKeys_FetchOutlivesItsRequest(t *testing.T) {
	w := newWorld(t)
	w.trust(func(i *identity.Issuer) { i.JWKSURI = "https://keys.example.com/jwks" })
	gate := make(chan struct{})
	w.idp.gate = gate
	ctx, cancel := context.WithCancel(t.Context())
	jwt := secret.New(w.jwt(nil))
	first, second := make(chan error, 1), make(chan error, 1)
	verify := func(ctx context.Context, done chan<- error) {
		_, err := w.VerifyUser(ctx, account, "agent-a", jwt)
		done <- err
	}
	go verify(ctx, first)
	for w.idp.fetches() < 1 {
		time.Sleep(time.Millisecond)
	}
	go verify(t.Context(), second)
	gone, leave := context.WithCancel(t.Context())
	leave()
	_, err := w.VerifyUser(gone, account, "agent-a", jwt)
	wantCode(t, "a waiter whose request ended", err, fault.Unavailable)
	cancel()
	close(gate)
	must(t, <-first)
	must(t, <-second)
	if want := []string{issuerURL + " https://keys.example.com/jwks"}; !slices.Equal(w.idp.calls, want) {
		t.Errorf("got fetches %q, want %q", w.idp.calls, want)
	}
}

func TestKeys_FromADocument(t *testing.T) {
	w := newWorld(t)
	doc := w.idp.doc
	w.idp.publish(nil, errors.New("not to be asked"))
	w.trust(func(i *identity.Issuer) { i.JWKS = doc })
	w.accepted("known key", w.jwt(nil))
	w.refused("unknown key", jwstest.Sign(t, "ES256", map[string]any{"kid": "x"}, w.claims(nil), w.idp.EC), fault.Unauthenticated)
	if n := w.idp.fetches(); n != 0 {
		t.Errorf("got %d fetches, want none", n)
	}
}

func TestKeys_NumberOfIssuersIsBounded(t *testing.T) {
	w := newWorld(t, func(c *identity.Config) { c.Dev = true })
	verify := func(i int) {
		t.Helper()
		w.clock.add(time.Millisecond)
		iss := fmt.Sprintf("http://127.0.0.1:%d", 1000+i)
		w.accepted(iss, w.jwt(map[string]any{"iss": iss}))
	}
	for i := range 257 {
		verify(i)
	}
	verify(256)
	verify(1)
	if n := w.idp.fetches(); n != 257 {
		t.Errorf("got %d fetches for 257 issuers, want one for each", n)
	}
	verify(0) // not used for longest, so its keys went
	if n := w.idp.fetches(); n != 258 {
		t.Errorf("got %d fetches after the first issuer came again, want 258", n)
	}
}
