package tabard_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"github.com/tabard-id/tabard"
)

func TestReportInvalid(t *testing.T) {
	f := newFake()
	c := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "a.b.c")
	tok, err := c.Token(ctx, calendarNeed())
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := c.ReportInvalid(ctx, calendarNeed(), tok)
	if err != nil || fresh.AccessToken != "provider-2" {
		t.Fatalf("got %v", err)
	}
	if calls := f.seen(opReport); len(calls) != 1 || len(calls[0]) != 2 || calls[0]["connectionId"] != "conn-1" || calls[0]["workloadIdentityToken"] != "wat-1-a.b.c<nil>" {
		t.Errorf("the report was %v", calls)
	}
	machine := tabard.OAuth2{Provider: "google", Flow: tabard.M2M}
	if _, err := c.ReportInvalid(t.Context(), machine, tok); err != nil {
		t.Errorf("M2M without a user: %v", err)
	}
	for name, c := range map[string]struct {
		answer func(int, object) (int, object)
		want   error
	}{
		"the connection was deleted": {func(int, object) (int, object) { return fault(404, "ResourceNotFoundException", "gone") }, nil},
		"throttled":                  {func(int, object) (int, object) { return fault(429, "ThrottlingException", "soon") }, tabard.ErrThrottled},
		"not paired":                 {func(int, object) (int, object) { return fault(403, "AccessDeniedException", "no") }, tabard.ErrDenied},
	} {
		f.on(opReport, c.answer)
		if _, err := f.client(t).ReportInvalid(ctx, calendarNeed(), tok); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	reports := len(f.seen(opReport))
	if _, err := c.ReportInvalid(ctx, calendarNeed(), &tabard.Token{AccessToken: "of AWS"}); err != nil || len(f.seen(opReport)) != reports {
		t.Errorf("a token without a connection: %v, %d reports more", err, len(f.seen(opReport))-reports)
	}
	if _, err := c.ReportInvalid(ctx, calendarNeed(), nil); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("no token: got %v", err)
	}
	if _, err := c.ReportInvalid(t.Context(), calendarNeed(), tok); !errors.Is(err, tabard.ErrNoIdentity) {
		t.Errorf("no user: got %v", err)
	}
	if _, err := c.ReportInvalid(ctx, tabard.OAuth2{}, tok); !errors.Is(err, tabard.ErrInvalid) || len(f.seen(opReport)) != reports {
		t.Errorf("no declaration: got %v", err)
	}
}

func TestTokenSourceReportInvalid(t *testing.T) {
	f := newFake()
	src := f.client(t).TokenSource(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
	first, err := src.Token()
	if err != nil {
		t.Fatal(err)
	}
	second, err := src.ReportInvalid(first)
	if err != nil || second.AccessToken != "provider-2" || len(f.seen(opReport)) != 1 {
		t.Fatalf("got %v, %d reports", err, len(f.seen(opReport)))
	}
	// Another goroutine met the same 401: it gets what there is by now, and nothing is reported twice.
	again, err := src.ReportInvalid(first)
	if err != nil || again.AccessToken != "provider-2" || len(f.seen(opReport)) != 1 {
		t.Errorf("got %v, %d reports", err, len(f.seen(opReport)))
	}
	f.on(opToken, func(int, object) (int, object) { return pending() })
	if _, err := src.ReportInvalid(second); !errors.Is(err, tabard.ErrConsentRequired) {
		t.Errorf("got %v, want ErrConsentRequired", err)
	}
	if _, err := src.ReportInvalid(&oauth2.Token{}); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	if s := fmt.Sprintf("%v %+v %#v", src, src, src); strings.Contains(s, "provider-") || strings.Contains(s, "a.b.c") {
		t.Errorf("printed: %s", s)
	}
}

// refusing is a resource that answers every request 401 with the challenge, and counts.
func refusing(t *testing.T, challenge string) (url string, hits func() int) {
	t.Helper()
	res := newResource(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if challenge != "" {
			w.Header().Set("WWW-Authenticate", challenge)
		}
		res.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() int { return len(res.seen()) }
}

// A 401 is reported once for a request, and never where it cannot be repeated or blames something else.
func TestTransportReportsOnce(t *testing.T) {
	for name, c := range map[string]struct {
		challenge     string
		stream        bool
		reports, hits int
	}{
		"no challenge":              {"", false, 1, 2},
		"Bearer":                    {`Bearer realm="api"`, false, 1, 2},
		"invalid_token":             {`Bearer error="invalid_token", error_description="revoked"`, false, 1, 2},
		"another scheme":            {`Basic realm="proxy"`, false, 0, 2},
		"another error":             {`Bearer error="invalid_request"`, false, 0, 2},
		"a body that cannot rewind": {"", true, 0, 1},
	} {
		for kind, client := range map[string]func(*tabard.Client, *fake) *http.Client{
			"HTTPClient": func(c *tabard.Client, _ *fake) *http.Client {
				return c.HTTPClient(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
			},
			"Transport": func(c *tabard.Client, _ *fake) *http.Client {
				return &http.Client{Transport: c.Transport(calendarNeed(), nil)}
			},
		} {
			f := newFake()
			url, hits := refusing(t, c.challenge)
			req := request(t, tabard.WithUserToken(t.Context(), "a.b.c"), "POST", url, "x")
			if c.stream {
				req.GetBody = nil
			}
			resp, err := client(f.client(t), f).Do(req)
			if err != nil || resp.StatusCode != http.StatusUnauthorized {
				t.Fatalf("%s, %s: %v", name, kind, err)
			}
			_ = resp.Body.Close()
			if n := len(f.seen(opReport)); n != c.reports || hits() != c.hits {
				t.Errorf("%s, %s: got %d reports and %d requests, want %d and %d", name, kind, n, hits(), c.reports, c.hits)
			}
		}
	}
}

func TestTransportAfterAReport(t *testing.T) {
	f := newFake()
	url, hits := refusing(t, "")
	hc := f.client(t).HTTPClient(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
	f.on(opReport, func(int, object) (int, object) { return fault(429, "ThrottlingException", "just failed") })
	resp, err := hc.Do(request(t, t.Context(), "GET", url, ""))
	if err != nil || resp.StatusCode != http.StatusUnauthorized || hits() != 1 {
		t.Fatalf("throttled: got %v after %d requests", err, hits())
	}
	_ = resp.Body.Close()
	f.on(opReport, func(int, object) (int, object) { return 200, object{"connectionState": "needs_reauth"} })
	f.on(opToken, func(int, object) (int, object) { return pending() })
	if _, err := hc.Do(request(t, t.Context(), "GET", url, "")); !errors.Is(err, tabard.ErrConsentRequired) || hits() != 2 {
		t.Errorf("needs_reauth: got %v after %d requests", err, hits())
	}
}
