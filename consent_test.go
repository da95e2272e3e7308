package tabard_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tabard-id/tabard"
)

// consenting answers like a service whose user consents after the given number of looks at the session.
func consenting(f *fake, looks int) {
	left := looks
	f.on(opToken, func(_ int, in object) (int, object) {
		if in["sessionUri"] == nil || left > 0 {
			if in["sessionUri"] != nil {
				left--
			}
			return pending()
		}
		return granted("consented")
	})
}

func TestConsentByError(t *testing.T) {
	f := newFake()
	consenting(f, 2)
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	_, err := c.Token(ctx, calendarNeed())
	required, ok := errors.AsType[*tabard.ConsentRequiredError](err)
	if !ok || !errors.Is(err, tabard.ErrConsentRequired) {
		t.Fatalf("got %v, want a ConsentRequiredError", err)
	}
	if required.URL != authURL || required.SessionURI != session || required.Provider != "google" ||
		len(required.Scopes) != 1 || required.ConnectionState != "needs_reauth" {
		t.Errorf("got %+v", required.Consent)
	}
	tok, err := c.Wait(ctx, calendarNeed(), required.Consent)
	if err != nil || tok.AccessToken != "consented" {
		t.Fatalf("Wait: %v", err)
	}
	calls := f.seen(opToken)
	if len(calls) != 4 {
		t.Errorf("%d calls, want one and three looks", len(calls))
	}
	for _, in := range calls[1:] {
		if in["sessionUri"] != session || in["resourceOauth2ReturnUrl"] != "http://localhost:9090/connected" {
			t.Errorf("look was %v", in)
		}
	}
	if _, err := c.Wait(ctx, calendarNeed(), tabard.Consent{}); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("without a session: %v, want ErrInvalid", err)
	}
}

func TestConsentByCallback(t *testing.T) {
	f := newFake()
	consenting(f, 1)
	var told []tabard.Consent
	c := f.client(t, func(cfg *tabard.Config) {
		cfg.OnConsent = func(_ context.Context, consent tabard.Consent) error {
			told = append(told, consent)
			return nil
		}
	})
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	tok, err := c.Token(ctx, calendarNeed())
	if err != nil || tok.AccessToken != "consented" || len(told) != 1 || told[0].URL != authURL {
		t.Fatalf("got %v, told %d", err, len(told))
	}

	// The context's handler wins over the client's; a nil one means the error.
	if _, err := c.Token(tabard.WithConsentHandler(ctx, nil), calendarNeed()); !errors.Is(err, tabard.ErrConsentRequired) {
		t.Errorf("nil handler: %v, want ErrConsentRequired", err)
	}
	away := errors.New("the chat is closed")
	own := tabard.WithConsentHandler(ctx, func(context.Context, tabard.Consent) error { return away })
	if _, err := c.Token(own, calendarNeed()); !errors.Is(err, away) {
		t.Errorf("failing handler: %v, want its error", err)
	}
	if len(told) != 1 {
		t.Errorf("the client's handler was told %d times", len(told))
	}
}

func TestConsentIsAskedOnceForCallsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var sessions, consented atomic.Int64
		f.on(opToken, func(_ int, in object) (int, object) {
			switch own := fmt.Sprint("urn:ietf:params:oauth:request_uri:", consented.Load()); {
			case in["sessionUri"] == nil && consented.Load() > 0, in["sessionUri"] == own:
				return granted("consented")
			case in["sessionUri"] == nil:
				return 200, object{"authorizationUrl": authURL, "sessionUri": fmt.Sprint("urn:ietf:params:oauth:request_uri:", sessions.Add(1))}
			}
			return pending()
		})
		c := f.direct(t, func(cfg *tabard.Config) { cfg.PollInterval = time.Second })
		var told atomic.Int64
		chat := func(ctx context.Context, consent tabard.Consent) error {
			if told.Add(1) == 1 {
				return errors.New("this chat is closed")
			}
			time.AfterFunc(time.Minute, func() {
				consented.Store(int64(consent.SessionURI[len(consent.SessionURI)-1] - '0'))
			})
			return nil
		}
		ctx := tabard.WithConsentHandler(tabard.WithUserToken(t.Context(), "a.b.c"), chat)
		var wg sync.WaitGroup
		var failed atomic.Int64
		began := time.Now()
		for range 5 {
			wg.Go(func() {
				if _, err := c.Token(ctx, calendarNeed()); err != nil {
					failed.Add(1)
				}
			})
		}
		wg.Wait()
		if told.Load() != 2 || failed.Load() != 1 || time.Since(began) > 2*time.Minute {
			t.Errorf("user was told %d times, %d calls failed, in %s; want the closed chat's call only, then one prompt for all",
				told.Load(), failed.Load(), time.Since(began))
		}
	})
}

func TestConsentRefusalHoldsForCallsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.on(opToken, func(_ int, in object) (int, object) {
			if in["sessionUri"] != nil {
				return fault(403, "AccessDeniedException", "Invalid or expired session: the user refused")
			}
			return pending()
		})
		var told atomic.Int64
		c := f.direct(t, func(cfg *tabard.Config) {
			cfg.PollInterval = time.Second
			cfg.OnConsent = func(context.Context, tabard.Consent) error { told.Add(1); return nil }
		})
		users := []string{"alice.b.c", "alice.b.c", "alice.b.c", "bob.b.c"}
		var wg sync.WaitGroup
		for _, user := range users {
			wg.Go(func() {
				_, err := c.Token(tabard.WithUserToken(t.Context(), user), calendarNeed())
				if !errors.Is(err, tabard.ErrConsentFailed) {
					t.Errorf("%s: %v, want ErrConsentFailed", user, err)
				}
			})
		}
		wg.Wait()
		if told.Load() != 2 {
			t.Errorf("%d prompts, want one for alice and one for bob", told.Load())
		}
	})
}

func TestConsentWaitIsCancellable(t *testing.T) {
	f := newFake()
	c := f.client(t)
	consenting(f, 1<<30)
	ctx, cancel := context.WithCancel(tabard.WithUserToken(t.Context(), "a.b.c"))
	ctx = tabard.WithConsentHandler(ctx, func(context.Context, tabard.Consent) error {
		time.AfterFunc(5*time.Millisecond, cancel)
		return nil
	})
	if _, err := c.Token(ctx, calendarNeed()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestConsentExpiresAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		consenting(f, 1<<30)
		c := f.direct(t, func(cfg *tabard.Config) { cfg.PollInterval = 5 * time.Second })
		began := time.Now()
		_, err := c.Wait(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed(), tabard.Consent{SessionURI: session})
		if !errors.Is(err, tabard.ErrConsentExpired) || time.Since(began) != 10*time.Minute {
			t.Errorf("after %s: %v, want ErrConsentExpired after 10m", time.Since(began), err)
		}
	})
}

func TestConsentRefused(t *testing.T) {
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	refusals := map[string]func() (int, object){
		"403": func() (int, object) {
			return fault(403, "AccessDeniedException", "Invalid or expired session: the user refused")
		},
		"FAILED": func() (int, object) { return 200, object{"sessionUri": session, "sessionStatus": "FAILED"} },
	}
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.on(opToken, func(int, object) (int, object) { return refusal() })
			_, err := f.client(t).Wait(ctx, calendarNeed(), tabard.Consent{SessionURI: session})
			if !errors.Is(err, tabard.ErrConsentFailed) {
				t.Fatalf("got %v, want ErrConsentFailed", err)
			}
			if name == "403" && (!errors.Is(err, tabard.ErrDenied) || !strings.Contains(err.Error(), "the user refused")) {
				t.Errorf("got %v, want the service's reason and ErrDenied", err)
			}
		})
	}
}

func TestConsentWaitOutlastsOutages(t *testing.T) {
	f := newFake()
	f.on(opToken, func(n int, _ object) (int, object) {
		switch n {
		case 1:
			return fault(503, "ServiceUnavailableException", "the store is away")
		case 2:
			return fault(429, "ThrottlingException", "slow down")
		case 3:
			return pending()
		}
		return granted("consented")
	})
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	if _, err := f.client(t).Wait(ctx, calendarNeed(), tabard.Consent{SessionURI: session}); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestReconsentForcesOnce(t *testing.T) {
	f := newFake()
	consenting(f, 2)
	c := f.client(t, func(cfg *tabard.Config) {
		cfg.OnConsent = func(context.Context, tabard.Consent) error { return nil }
	})
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	if _, err := c.Reconsent(ctx, calendarNeed()); err != nil {
		t.Fatal(err)
	}
	for i, in := range f.seen(opToken) {
		if forced := in["forceAuthentication"] == true; forced != (i == 0) {
			t.Errorf("call %d forces: %v", i, forced)
		}
	}
	if _, err := c.Reconsent(ctx, tabard.OAuth2{Provider: "crm", Flow: tabard.M2M}); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("M2M: %v, want ErrInvalid", err)
	}
}

func TestComplete(t *testing.T) {
	f := newFake()
	c := f.client(t)
	if err := c.Complete(t.Context(), session, tabard.UserToken("a.b.c")); err != nil {
		t.Fatal(err)
	}
	if err := c.Complete(t.Context(), session, tabard.UserID("alice")); err != nil {
		t.Fatal(err)
	}
	calls := f.seen(opComplete)
	if calls[0]["userIdentifier"].(object)["userToken"] != "a.b.c" || calls[1]["userIdentifier"].(object)["userId"] != "alice" {
		t.Errorf("got %v", calls)
	}
	for _, bad := range []string{"", "conn-1", session + " x", "urn:ietf:params:oauth:request_uri:"} {
		if err := c.Complete(t.Context(), bad, tabard.UserID("alice")); !errors.Is(err, tabard.ErrInvalid) {
			t.Errorf("session %q: %v, want ErrInvalid", bad, err)
		}
	}
	for _, nobody := range []tabard.User{{}, tabard.UserToken("")} {
		if err := c.Complete(t.Context(), session, nobody); !errors.Is(err, tabard.ErrNoIdentity) {
			t.Errorf("nobody: %v, want ErrNoIdentity", err)
		}
	}
	if got := len(f.seen(opComplete)); got != 2 {
		t.Errorf("%d calls, want 2", got)
	}
}

func TestCompleteHandler(t *testing.T) {
	f := newFake()
	f.on(opComplete, func(_ int, in object) (int, object) {
		if in["userIdentifier"].(object)["userToken"] != "alice.b.c" {
			return fault(403, "AccessDeniedException", "Invalid or expired session: another user")
		}
		return 200, object{}
	})
	c := f.client(t)
	handler := c.CompleteHandler(func(r *http.Request, state string) (tabard.User, error) {
		cookie, err := r.Cookie("login")
		if err != nil || state != "state-1" {
			return tabard.User{}, errors.New("not logged in, or another browser's state")
		}
		return tabard.UserToken(cookie.Value), nil
	}, nil)
	for _, tc := range []struct {
		name, method, query, login string
		status, calls              int
	}{
		{"alice", "GET", "?session_id=" + session + "&state=state-1", "alice.b.c", 200, 1},
		{"bob", "GET", "?session_id=" + session + "&state=state-1", "bob.b.c", 403, 2},
		{"wrong state", "GET", "?session_id=" + session + "&state=other", "alice.b.c", 403, 2},
		{"no login", "GET", "?session_id=" + session + "&state=state-1", "", 403, 2},
		{"no session", "GET", "?state=state-1", "alice.b.c", 403, 2},
		{"posted", "POST", "?session_id=" + session + "&state=state-1", "alice.b.c", 405, 2},
	} {
		r := httptest.NewRequest(tc.method, "/connected"+tc.query, nil)
		if tc.login != "" {
			r.AddCookie(&http.Cookie{Name: "login", Value: tc.login})
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != tc.status || len(f.seen(opComplete)) != tc.calls {
			t.Errorf("%s: %d after %d calls, want %d after %d", tc.name, w.Code, len(f.seen(opComplete)), tc.status, tc.calls)
		}
		if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers %v", tc.name, w.Header())
		}
		if strings.Contains(w.Body.String(), session) {
			t.Errorf("%s: the page shows the session", tc.name)
		}
	}
}
