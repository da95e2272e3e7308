package tabard_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard"
)

func TestTokenCarriesExtras(t *testing.T) {
	f := newFake()
	c := f.client(t)
	need := tabard.OAuth2{Provider: "google", Scopes: []string{"events"}, Resources: []string{"https://r"},
		Audiences: []string{"aud"}, CustomParameters: map[string]string{"login_hint": "a"}}
	ctx := tabard.WithCustomState(tabard.WithUserToken(t.Context(), "a.b.c"), "state-1")
	tok, err := c.Token(ctx, need)
	if err != nil {
		t.Fatal(err)
	}
	if tok.AccessToken != "provider-1" || tok.Type != "Bearer" || tok.ConnectionID != "conn-1" || tok.ConnectionState != "active" {
		t.Errorf("got %q %q %q %q", tok.AccessToken, tok.Type, tok.ConnectionID, tok.ConnectionState)
	}
	if d := time.Until(tok.Expiry); d < 59*time.Minute || d > 61*time.Minute {
		t.Errorf("expiry in %s, want an hour", d)
	}
	if !tok.HasScope("events") || tok.HasScope("mail") {
		t.Errorf("scopes %v, want events only", tok.Scopes)
	}
	want := object{"workloadIdentityToken": "wat-1-a.b.c<nil>", "resourceCredentialProviderName": "google",
		"oauth2Flow": "USER_FEDERATION", "scopes": []any{"events"}, "resources": []any{"https://r"}, "audiences": []any{"aud"},
		"customParameters": object{"login_hint": "a"}, "customState": "state-1",
		"resourceOauth2ReturnUrl": "http://localhost:9090/connected"}
	if diff := cmp.Diff(want, f.seen(opToken)[0]); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(object{"workloadName": "calendar-agent", "userToken": "a.b.c"}, f.seen(opJWT)[0]); diff != "" {
		t.Errorf("mint (-want +got):\n%s", diff)
	}
}

func TestAgainstAWSExpiryIsZero(t *testing.T) {
	f := newFake()
	f.bare = true
	c := f.client(t)
	ctx := tabard.WithUserID(t.Context(), "alice")
	tok, err := c.Token(ctx, calendarNeed())
	if err != nil {
		t.Fatal(err)
	}
	if !tok.Expiry.IsZero() || tok.Scopes != nil || tok.ConnectionID != "" || tok.Type != "Bearer" {
		t.Errorf("got expiry %s, scopes %v, connection %q, type %q; want none and Bearer", tok.Expiry, tok.Scopes, tok.ConnectionID, tok.Type)
	}
	if got := tok.OAuth2().Expiry; !got.IsZero() {
		t.Errorf("OAuth2 has expiry %s, want zero", got)
	}
	if f.seen(opUserID)[0]["userId"] != "alice" {
		t.Errorf("minted for %v", f.seen(opUserID)[0])
	}
	// A source's token must not look as if it never ended.
	got, err := c.TokenSource(ctx, calendarNeed()).Token()
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Until(got.Expiry); d <= 0 || d > time.Minute {
		t.Errorf("source's token ends in %s, want at most a minute", d)
	}
}

func TestExtrasOfAnotherTypeAreIgnored(t *testing.T) {
	f := newFake()
	f.on(opToken, func(int, object) (int, object) {
		return 200, object{"accessToken": "x", "expiresAt": "2026-01-01T00:00:00Z", "grantedScopes": "events", "ExpiresAt": 5,
			"tokenType": 7, "connectionId": nil}
	})
	tok, err := f.client(t).Token(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
	if err != nil {
		t.Fatal(err)
	}
	if !tok.Expiry.IsZero() || tok.Scopes != nil || tok.Type != "Bearer" {
		t.Errorf("got expiry %s, scopes %v, type %q", tok.Expiry, tok.Scopes, tok.Type)
	}
}

func TestM2MNeedsNoUser(t *testing.T) {
	f := newFake()
	c := f.client(t)
	if _, err := c.Token(t.Context(), tabard.OAuth2{Provider: "crm", Flow: tabard.M2M}); err != nil {
		t.Fatal(err)
	}
	in := f.seen(opToken)[0]
	if len(f.seen(opPlain)) != 1 || in["oauth2Flow"] != "M2M" {
		t.Errorf("got %v", in)
	}
	if scopes, ok := in["scopes"].([]any); !ok || len(scopes) != 0 {
		t.Errorf("scopes %v, want an empty list", in["scopes"])
	}
	if _, has := in["resourceOauth2ReturnUrl"]; has {
		t.Error("M2M sends a return URL")
	}
	if _, err := c.Token(t.Context(), calendarNeed()); !errors.Is(err, tabard.ErrNoIdentity) {
		t.Errorf("user federation without a user: %v, want ErrNoIdentity", err)
	}
	key, err := c.APIKey(t.Context(), "weather")
	if err != nil || key.Value() != "key-canary" {
		t.Errorf("APIKey: %q, %v", key.Value(), err)
	}
	if len(f.seen(opPlain)) != 1 {
		t.Errorf("%d mints, want the cached one", len(f.seen(opPlain)))
	}
}

func TestWATIsCachedPerUser(t *testing.T) {
	f := newFake()
	c := f.client(t)
	var wg sync.WaitGroup
	for range 8 {
		for _, jwt := range []string{"alice.b.c", "bob.b.c"} {
			wg.Go(func() {
				tok, err := c.Token(tabard.WithUserToken(t.Context(), jwt), calendarNeed())
				if err != nil || tok == nil {
					t.Errorf("%s: %v", jwt, err)
				}
			})
		}
	}
	wg.Wait()
	if got := len(f.seen(opJWT)); got != 2 {
		t.Errorf("%d mints for two users, want 2", got)
	}
	minted := map[any]bool{}
	for _, in := range f.seen(opToken) {
		minted[in["workloadIdentityToken"]] = true
	}
	if len(minted) != 2 {
		t.Errorf("calls carried %d workload access tokens, want one a user", len(minted))
	}
}

func TestWATIsMintedAgainOn401(t *testing.T) {
	f := newFake()
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	if _, err := c.Token(ctx, calendarNeed()); err != nil {
		t.Fatal(err)
	}
	f.on(opToken, func(_ int, in object) (int, object) {
		if strings.HasPrefix(in["workloadIdentityToken"].(string), "wat-1-") {
			return fault(401, "UnauthorizedException", "the workload access token was revoked")
		}
		return granted("fresh")
	})
	tok, err := c.Token(ctx, calendarNeed())
	if err != nil || tok.AccessToken != "fresh" {
		t.Fatalf("after revocation: %v", err)
	}
	if got := len(f.seen(opJWT)); got != 2 {
		t.Errorf("%d mints, want 2", got)
	}

	// A new token that is refused too is not minted for ever, and the user's own end is told as it is.
	f.on(opToken, func(int, object) (int, object) { return fault(401, "UnauthorizedException", "no") })
	if _, err := c.Token(ctx, calendarNeed()); !errors.Is(err, tabard.ErrUnauthenticated) {
		t.Errorf("got %v, want ErrUnauthenticated", err)
	}
	if got := len(f.seen(opJWT)); got != 3 {
		t.Errorf("%d mints, want one more", got)
	}
	f.on(opJWT, func(int, object) (int, object) {
		return fault(401, "UnauthorizedException", "the user's token has expired")
	})
	_, err = c.Token(ctx, calendarNeed())
	e, ok := errors.AsType[*tabard.Error](err)
	if !ok || e.Op != "GetWorkloadAccessTokenForJWT" || !strings.Contains(e.Message, "expired") {
		t.Errorf("got %v, want the mint's own answer", err)
	}
}

func TestForeignWATIsUsedAsIs(t *testing.T) {
	f := newFake()
	f.on(opToken, func(int, object) (int, object) { return fault(401, "UnauthorizedException", "expired") })
	ctx := tabard.WithWorkloadAccessToken(tabard.WithUserToken(t.Context(), "a.b.c"), "wat-of-runtime")
	if _, err := f.client(t).Token(ctx, calendarNeed()); !errors.Is(err, tabard.ErrUnauthenticated) {
		t.Errorf("got %v, want ErrUnauthenticated", err)
	}
	if f.seen(opToken)[0]["workloadIdentityToken"] != "wat-of-runtime" || len(f.seen(opJWT)) != 0 || len(f.seen(opToken)) != 1 {
		t.Error("a token from the runtime was replaced")
	}
}

func TestWATEndsBeforeItsExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.direct(t)
		ctx := tabard.WithUserToken(t.Context(), "a.b.c")
		ask := func(wantMints int) {
			t.Helper()
			if _, err := c.Token(ctx, calendarNeed()); err != nil {
				t.Fatal(err)
			}
			if got := len(f.seen(opJWT)); got != wantMints {
				t.Errorf("%d mints, want %d", got, wantMints)
			}
		}
		ask(1)
		time.Sleep(13 * time.Minute)
		ask(1)
		time.Sleep(90 * time.Second) // half a minute before the end
		ask(2)
		f.bare = true
		time.Sleep(15 * time.Minute)
		ask(3)
		time.Sleep(4 * time.Minute)
		ask(3)
		time.Sleep(2 * time.Minute) // AWS tells no end: five minutes at most
		ask(4)
	})
}

func TestWATCacheIsBounded(t *testing.T) {
	f := newFake()
	c := f.direct(t)
	for i := range 1100 {
		if _, err := c.APIKey(tabard.WithUserID(t.Context(), fmt.Sprint("user-", i)), "weather"); err != nil {
			t.Fatal(err)
		}
	}
	before := len(f.seen(opUserID))
	if _, err := c.APIKey(tabard.WithUserID(t.Context(), "user-1099"), "weather"); err != nil || len(f.seen(opUserID)) != before {
		t.Errorf("the newest user was forgotten (%v)", err)
	}
	if _, err := c.APIKey(tabard.WithUserID(t.Context(), "user-0"), "weather"); err != nil || len(f.seen(opUserID)) != before+1 {
		t.Errorf("the oldest user is still held (%v)", err)
	}
}

func TestTokenSourceKeepsUntilShortlyBeforeExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.direct(t)
		src := c.TokenSource(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
		for _, step := range []struct {
			after time.Duration
			calls int
		}{{0, 1}, {59 * time.Minute, 1}, {45 * time.Second, 2}} {
			time.Sleep(step.after)
			if _, err := src.Token(); err != nil {
				t.Fatal(err)
			}
			if got := len(f.seen(opToken)); got != step.calls {
				t.Errorf("after %s more: %d calls, want %d", step.after, got, step.calls)
			}
		}
	})
}
