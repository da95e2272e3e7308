package standin_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	gcal "google.golang.org/api/calendar/v3"
	"google.golang.org/api/googleapi"

	"github.com/tabard-id/tabard/internal/standin"
)

func wantGoogleError(t *testing.T, what string, err error, status int, reason string) {
	t.Helper()
	var ge *googleapi.Error
	if !errors.As(err, &ge) || ge.Code != status || len(ge.Errors) != 1 || ge.Errors[0].Reason != reason {
		t.Errorf("%s: got %v, want %d %s", what, err, status, reason)
	}
}

func lunch() *gcal.Event {
	return &gcal.Event{Summary: "Lunch with Sam", Location: "Canteen <1>",
		Start: &gcal.EventDateTime{DateTime: "2026-11-24T12:00:00Z"}, End: &gcal.EventDateTime{DateTime: "2026-11-24T12:45:00Z"}}
}

func TestGooglesClientBooksAndFindsAnEvent(t *testing.T) {
	c := newCalendar(t)
	token := c.connect(t, alice())
	s := c.google(t, token.AccessToken)
	made, err := s.Events.Insert("primary", lunch()).Do()
	if err != nil {
		t.Fatalf("insert: %v", err)
	}
	if _, err := s.Events.Insert("primary", &gcal.Event{Summary: "Earlier", Start: &gcal.EventDateTime{DateTime: "2026-11-24T08:00:00", TimeZone: "Europe/Berlin"},
		End: &gcal.EventDateTime{DateTime: "2026-11-24T08:30:00", TimeZone: "Europe/Berlin"}}).Do(); err != nil {
		t.Fatalf("insert with a zone: %v", err)
	}
	list, err := s.Events.List(alice().Name).SingleEvents(true).OrderBy("startTime").TimeMin("2026-11-24T00:00:00Z").TimeMax("2026-11-25T00:00:00Z").Do()
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	var got []string
	for _, e := range list.Items {
		got = append(got, e.Summary+" "+e.Start.DateTime)
	}
	if diff := cmp.Diff([]string{"Earlier 2026-11-24T08:00:00+01:00", "Lunch with Sam 2026-11-24T12:00:00Z"}, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if list, err := s.Events.List("primary").TimeMin("2026-11-24T12:45:00Z").Do(); err != nil || len(list.Items) != 0 {
		t.Errorf("timeMin at the end of the last event: got %v, %v, want none", list, err)
	}
	if e, err := s.Events.Get("primary", made.Id).Do(); err != nil || e.Summary != "Lunch with Sam" || e.Organizer.Email != alice().Email {
		t.Errorf("get: got %+v, %v", e, err)
	}
	if err := s.Events.Delete("primary", made.Id).Do(); err != nil {
		t.Errorf("delete: %v", err)
	}
	wantGoogleError(t, "second delete", s.Events.Delete("primary", made.Id).Do(), http.StatusGone, "deleted")
	if events := c.Events(alice().Name); len(events) != 1 || events[0].Summary != "Earlier" {
		t.Errorf("Events after the delete: got %v, want Earlier", events)
	}
	if len(c.Events(bob().Name)) != 0 {
		t.Error("bob's calendar has alice's events")
	}
}

func TestCalendarAPIRefusals(t *testing.T) {
	c := newCalendar(t)
	token := c.connect(t, alice())
	s := c.google(t, token.AccessToken)
	bad := func(change func(*gcal.Event)) error {
		e := lunch()
		change(e)
		_, err := s.Events.Insert("primary", e).Do()
		return err
	}
	wantGoogleError(t, "no end", bad(func(e *gcal.Event) { e.End = nil }), 400, "required")
	wantGoogleError(t, "no offset and no zone", bad(func(e *gcal.Event) { e.Start.DateTime = "2026-11-24T12:00:00" }), 400, "invalid")
	wantGoogleError(t, "an hour that does not exist", bad(func(e *gcal.Event) { e.Start.DateTime = "2026-11-24T25:00:00Z" }), 400, "invalid")
	wantGoogleError(t, "unknown zone", bad(func(e *gcal.Event) { e.Start.TimeZone = "Mars/Olympus" }), 400, "invalid")
	wantGoogleError(t, "end before start", bad(func(e *gcal.Event) { e.End.DateTime = "2026-11-24T11:00:00Z" }), 400, "timeRangeEmpty")
	_, err := s.Events.List("primary").OrderBy("startTime").Do()
	wantGoogleError(t, "orderBy without singleEvents", err, 400, "badRequest")
	_, err = s.Events.List("primary").TimeMin("tomorrow").Do()
	wantGoogleError(t, "timeMin that is no time", err, 400, "badRequest")
	_, err = s.Events.List(bob().Name).Do()
	wantGoogleError(t, "another user's calendar", err, 404, "notFound")
	_, err = s.CalendarList.List().Do()
	wantGoogleError(t, "calendarList without its scope", err, 403, "insufficientPermissions")
	_, err = c.google(t, "ya29.forged").Events.List("primary").Do()
	wantGoogleError(t, "forged token", err, 401, "authError")

	c.config.Scopes = []string{"https://www.googleapis.com/auth/calendar.events.readonly"}
	reader := c.google(t, c.connect(t, alice()).AccessToken)
	if _, err := reader.Events.List("primary").Do(); err != nil {
		t.Errorf("list with a reader's scope: %v", err)
	}
	_, err = reader.Events.Insert("primary", lunch()).Do()
	wantGoogleError(t, "insert with a reader's scope", err, 403, "insufficientPermissions")

	c.clock.advance(time.Minute)
	_, err = s.Events.List("primary").Do()
	wantGoogleError(t, "expired token", err, 401, "authError")
}

func TestClientCredentialsHaveTheirOwnCalendar(t *testing.T) {
	c := newCalendar(t)
	config := clientcredentials.Config{ClientID: "tabard", ClientSecret: webSecret, TokenURL: c.Issuer() + "/token", Scopes: []string{standin.ScopeCalendarEvents}}
	token, err := config.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.google(t, token.AccessToken).Events.Insert("primary", lunch()).Do(); err != nil {
		t.Fatalf("insert: %v", err)
	}
	if len(c.Events("tabard")) != 1 || len(c.Events(alice().Name)) != 0 {
		t.Error("the event is not in the client's own calendar alone")
	}
	config.ClientID, config.ClientSecret = "other", "other-secret"
	_, err = config.Token(t.Context())
	wantOAuthError(t, "a client without the grant", err, "unauthorized_client")
}

func TestPagesAreSelfContainedAndSessionsAreApart(t *testing.T) {
	c := newCalendar(t)
	if _, err := c.google(t, c.connect(t, alice()).AccessToken).Events.Insert("primary", lunch()).Do(); err != nil {
		t.Fatal(err)
	}
	b := browser()
	login, err := b.Visit(t.Context(), c.PageURL())
	if err != nil {
		t.Fatal(err)
	}
	page, err := b.LogIn(t.Context(), c.PageURL(), alice())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.Body, "Lunch with Sam") || !strings.Contains(page.Body, "Canteen &lt;1&gt;") {
		t.Error("alice's page does not show her event, escaped")
	}
	for _, p := range []*standin.Page{login, page} {
		if !strings.HasPrefix(p.Header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'sha256-") {
			t.Errorf("%s: got policy %q", p.URL.Path, p.Header.Get("Content-Security-Policy"))
		}
		for _, forbidden := range []string{"<script", "src=", "<link"} {
			if strings.Contains(p.Body, forbidden) {
				t.Errorf("%s holds %s", p.URL.Path, forbidden)
			}
		}
	}
	if page, err = browser().LogIn(t.Context(), c.PageURL(), bob()); err != nil || strings.Contains(page.Body, "Lunch") {
		t.Errorf("bob's page: got error %v or alice's event", err)
	}
	// The second request of a signed-in person skips the login, and still asks for consent.
	page, err = b.Visit(t.Context(), c.config.AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	if err != nil || !strings.Contains(page.Body, "Tabard wants access") || !strings.Contains(page.Body, "See and change the events") {
		t.Errorf("consent page of a signed-in person: error %v, status %d", err, page.Status)
	}
	page, err = b.Submit(t.Context(), page, url.Values{"decision": {"allow"}, "form": {"forged"}})
	if err != nil || page.Status != http.StatusForbidden {
		t.Errorf("forged consent: got %v, %d, want 403", err, page.Status)
	}
}
