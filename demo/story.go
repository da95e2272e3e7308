package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/standin"
)

// storyTokenLife is short, so that the clock need not be moved far to see a token expire: requests are signed by the
// real clock, and Tabard takes no signature that is five minutes off.
const storyTokenLife = 2 * time.Minute

// story plays the walkthrough as scripted people, through HTTP, and checks each thing it says.
type story struct {
	*printer
	w          *world
	alice, bob *actor
	begun      string // where the audit trail ended before: a kept data directory has earlier stories in it
}

// actor is a scripted person: a browser, an account at work, and one at the calendar.
type actor struct {
	browser          *standin.Browser
	atWork, calendar standin.User
	home             string // the web app
}

func newStory(w *world, p *printer) *story {
	work, calendars := standin.OIDCUsers(), standin.CalendarUsers()
	return &story{printer: p, w: w,
		alice: &actor{standin.NewBrowser(), work[0], calendars[0], w.webURL},
		bob:   &actor{standin.NewBrowser(), work[1], calendars[1], w.webURL}}
}

// logIn logs the person in at the web app.
func (a *actor) logIn(ctx context.Context) (view, error) {
	page, err := a.browser.LogIn(ctx, a.home+"/login", a.atWork)
	if err != nil {
		return view{}, err
	}
	if page.Status != http.StatusOK {
		return view{}, fmt.Errorf("the login of %s ended at %s with %d", a.atWork.Name, page.URL.Path, page.Status)
	}
	return a.look(ctx)
}

// ask types a request into the form of the web app.
func (a *actor) ask(ctx context.Context, prompt string) (view, error) {
	page, err := a.browser.Visit(ctx, a.home+"/")
	if err != nil {
		return view{}, err
	}
	if _, err := a.browser.Submit(ctx, page, url.Values{"prompt": {prompt}}); err != nil {
		return view{}, err
	}
	return a.look(ctx)
}

// approve opens a link to consent, logs in at the calendar if asked, and allows what is asked for.
func (a *actor) approve(ctx context.Context, link string) (*standin.Page, view, error) {
	page, err := a.browser.Approve(ctx, link, a.calendar)
	if err != nil {
		return page, view{}, err
	}
	v, err := a.look(ctx)
	return page, v, err
}

// look reads the web app's page, in the form for programs.
func (a *actor) look(ctx context.Context) (view, error) {
	page, err := a.browser.Visit(ctx, a.home+"/state.json")
	if err != nil {
		return view{}, err
	}
	var v view
	err = json.Unmarshal([]byte(page.Body), &v)
	return v, err
}

// token finds the token of a kind; its fingerprint is empty if there is none.
func (v view) token(kind string) tokenView {
	for _, t := range v.Tokens {
		if t.Kind == kind {
			return t
		}
	}
	return tokenView{}
}

func (v view) link() string {
	if v.Heard.Consent == nil || v.Heard.Booked != nil {
		return ""
	}
	return v.Heard.Consent.URL
}

// failing says what went wrong with a request, for the check that expected an event.
func (v view) failing() string {
	if v.Heard.Failed != nil {
		return ": " + v.Heard.Failed.Message
	}
	return ""
}

// tell plays everything. A part that cannot go on, because what it builds on is missing, ends the story as a failed
// check.
func (s *story) tell(ctx context.Context) {
	s.w.calendar.SetAccessTokenLifetime(storyTokenLife)
	defer s.w.calendar.SetAccessTokenLifetime(calendarTokenLife)
	parts := []func(context.Context) error{s.begin, s.firstBooking, s.secondBooking, s.refresh, s.bobAsks, s.bobFinishes, s.otherAgent, s.noSecrets}
	for _, part := range parts {
		if err := part(ctx); err != nil {
			s.check(false, "the story goes on: %v", err)
			return
		}
	}
}

func (s *story) begin(ctx context.Context) (err error) {
	s.begun, err = s.w.trail.mark(ctx)
	return err
}

var errStuck = errors.New("what the next step needs is missing")

// firstBooking is the walkthrough itself, in five steps.
func (s *story) firstBooking(ctx context.Context) error {
	s.step("Alice logs in at the identity provider")
	v, err := s.alice.logIn(ctx)
	if err != nil {
		return err
	}
	human := v.token(humanToken)
	s.token(human)
	s.check(v.Email == s.alice.atWork.Email, "the web app knows her as %s", v.Email)
	s.check(human.Audience == "client "+webName, "her token is Cognito's kind: client_id %s, no aud", webName)

	const prompt = "lunch with Sam tomorrow at noon for 45 minutes"
	s.step("The web app hands “%s” and her token to the agent", prompt)
	if v, err = s.alice.ask(ctx, prompt); err != nil {
		return err
	}
	if v.Heard.Understood == nil || v.link() == "" {
		return fmt.Errorf("%w: the agent asked for no consent%s", errStuck, v.failing())
	}
	s.fact("understood", "%s, %s to %s", v.Heard.Understood.Summary, v.Heard.Understood.Start.In(s.w.zone).Format("Monday 2 January 15:04"), v.Heard.Understood.End.In(s.w.zone).Format("15:04"))
	s.say("It exchanges her token for one of its own, bound to this agent and this user:")
	wat := v.token(workloadToken)
	s.token(wat)
	s.check(wat.Fingerprint != "" && wat.Fingerprint != human.Fingerprint, "the agent works with another token than hers")

	s.step("The agent asks for a calendar token; nothing is stored, so Alice consents")
	s.fact("asks for", "%s", strings.Join(v.Heard.Consent.Scopes, " "))
	s.fact("her browser opens", "%s…", cut(v.link(), 64))
	s.check(v.token(providerToken).Fingerprint == "" && s.w.calendar.Redemptions() == 0, "before she agrees there is no calendar token and no code was redeemed")
	page, v, err := s.alice.approve(ctx, v.link())
	if err != nil {
		return err
	}
	s.say("She logs in at the calendar provider, allows it, and comes back to the web app.")

	s.step("The web app confirms who is in this browser; only now is the code redeemed, and sealed")
	s.check(page.Status == http.StatusOK && page.URL.Path == "/", "she is back at the web app, with no session id in the address")
	complete, _ := find(v.Records, "CompleteResourceTokenAuth", "complete")
	redeemed, ok := find(v.Records, "RedeemCode", "redeemed")
	s.check(ok && complete.Sequence > 0 && complete.Sequence < redeemed.Sequence, "audit: confirmed (record %d), then redeemed (record %d)", complete.Sequence, redeemed.Sequence)
	s.check(complete.Principal == webName, "confirmed by principal %s, not by the agent", complete.Principal)
	s.check(s.w.calendar.Redemptions() == 1, "the code was redeemed once")
	s.fact("stored", "connection %s, generation %d, for %s", redeemed.ConnectionID, redeemed.Generation, redeemed.WorkloadName)
	s.fact("", "and user %s…, scopes %s", cut(redeemed.UserRef, 12), strings.Join(redeemed.Scopes, " "))

	s.step("The agent polls, gets the calendar token, and books")
	if v.Heard.Booked == nil {
		return fmt.Errorf("%w: no event%s", errStuck, v.failing())
	}
	for _, t := range v.Tokens {
		s.token(t)
	}
	got := v.Heard.Booked
	s.fact("in her calendar", "%s, %s to %s", got.Summary, got.Start.In(s.w.zone).Format("Monday 2 January 15:04"), got.End.In(s.w.zone).Format("15:04"))
	s.fact("connection", "%s is %s, its token ends at %s", got.Connection.ID, got.Connection.State, got.Connection.Expires.In(s.w.zone).Format("15:04:05"))
	s.check(distinct(v.Tokens) == 3, "three tokens, all different")
	s.check(got.Connection.ID == redeemed.ConnectionID, "the answer and the audit name the same connection")
	s.check(s.events(s.alice, "Lunch with Sam") == 1 && s.count(s.alice) == 1 && s.count(s.bob) == 0, "the event is in Alice's calendar, and nothing in Bob's")
	return nil
}

// distinct counts the different tokens.
func distinct(tokens []tokenView) int {
	seen := map[string]bool{}
	for _, t := range tokens {
		seen[t.Fingerprint] = true
	}
	return len(seen)
}

func cut(s string, n int) string { return s[:min(n, len(s))] }

// count is how many events are in the person's calendar, as the calendar itself knows.
func (s *story) count(a *actor) int { return len(s.w.calendar.Events(a.calendar.Name)) }

func (s *story) events(a *actor, summary string) int {
	n := 0
	for _, e := range s.w.calendar.Events(a.calendar.Name) {
		if e.Summary == summary {
			n++
		}
	}
	return n
}

func (s *story) secondBooking(ctx context.Context) error {
	s.step("A second booking needs no prompt")
	v, err := s.alice.ask(ctx, "coffee with Ann on Friday at 9:30 for half an hour")
	if err != nil {
		return err
	}
	s.check(v.Heard.Booked != nil && v.Heard.Consent == nil, "booked at once, from the vault%s", v.failing())
	s.check(s.w.calendar.Redemptions() == 1 && s.w.calendar.Refreshes() == 0 && s.count(s.alice) == 2, "the calendar provider's token endpoint was not asked")
	return nil
}

// refresh lets the stored token come to its end.
func (s *story) refresh(ctx context.Context) error {
	s.step("An expired token is refreshed silently")
	before, err := s.alice.look(ctx)
	if err != nil {
		return err
	}
	s.w.clock.Skip(storyTokenLife - 30*time.Second)
	s.say("Her calendar token lives two minutes. The clock jumps a minute and a half: 30 seconds are left, and Tabard releases no token with less than 60.")
	v, err := s.alice.ask(ctx, "review with Kim tomorrow at 3pm")
	if err != nil {
		return err
	}
	r, ok := find(v.Records, "RefreshTokens", "refreshed")
	s.check(v.Heard.Booked != nil && v.Heard.Consent == nil, "booked, and Alice saw nothing of it%s", v.failing())
	s.check(ok && r.Generation == 2 && s.w.calendar.Refreshes() == 1, "audit: refreshed once, now generation %d", r.Generation)
	old, fresh := before.token(providerToken), v.token(providerToken)
	s.token(fresh)
	s.check(fresh.Fingerprint != "" && fresh.Fingerprint != old.Fingerprint, "it is another calendar token than before (#%s)", old.Fingerprint)
	return nil
}

func (s *story) bobAsks(ctx context.Context) error {
	s.step("Bob asks the same agent, and is asked for his own consent")
	if _, err := s.bob.logIn(ctx); err != nil {
		return err
	}
	alice, err := s.alice.look(ctx)
	if err != nil {
		return err
	}
	mine := s.count(s.alice)
	v, err := s.bob.ask(ctx, "dinner with Tim tomorrow at 7pm for 2 hours")
	if err != nil {
		return err
	}
	s.check(v.link() != "" && v.token(providerToken).Fingerprint == "", "he gets a link and no token%s", v.failing())
	if v.link() == "" {
		return errStuck
	}
	if _, v, err = s.bob.approve(ctx, v.link()); err != nil {
		return err
	}
	if v.Heard.Booked == nil {
		return fmt.Errorf("%w: no event for bob%s", errStuck, v.failing())
	}
	for _, t := range v.Tokens {
		s.token(t)
	}
	apart := true
	for _, kind := range []string{humanToken, workloadToken, providerToken} {
		apart = apart && v.token(kind).Fingerprint != alice.token(kind).Fingerprint
	}
	s.check(apart && distinct(v.Tokens) == 3, "none of his three tokens is one of Alice's")
	s.check(v.Heard.Booked.Connection.ID != alice.Heard.Booked.Connection.ID, "he has a connection of his own, %s", v.Heard.Booked.Connection.ID)
	s.check(s.count(s.bob) == 1 && s.count(s.alice) == mine, "his event is in his calendar, and Alice's did not change")
	return nil
}

// bobFinishes is the attack that session binding is for: somebody else finishes a consent.
func (s *story) bobFinishes(ctx context.Context) error {
	s.step("Bob's browser finishes a consent link of Alice's, and is refused")
	v, err := s.alice.ask(ctx, "connect another calendar")
	if err != nil {
		return err
	}
	link := v.link()
	if link == "" {
		return fmt.Errorf("%w: no link%s", errStuck, v.failing())
	}
	redemptions, hers, his := s.w.calendar.Redemptions(), s.count(s.alice), s.count(s.bob)
	page, _, err := s.bob.approve(ctx, link)
	if err != nil {
		return err
	}
	s.check(page.Status == http.StatusForbidden, "the web app refuses: the state in the address is not this browser's (%d)", page.Status)
	s.check(s.w.calendar.Redemptions() == redemptions, "nothing was redeemed")

	s.say("And if nobody had looked at the state:")
	err = s.finishAs(ctx, s.w.agent.client, link, s.alice)
	s.check(errors.Is(err, tabard.ErrDenied), "the agent may not confirm a consent itself, not even with Alice's token (403)")
	err = s.finishAs(ctx, s.w.web.consents, link, s.bob)
	s.check(errors.Is(err, tabard.ErrDenied), "Tabard refuses: the user who finished is not the user who began (403)")
	err = s.finishAs(ctx, s.w.web.consents, link, s.alice)
	s.check(errors.Is(err, tabard.ErrDenied), "the session is dead, for Alice too")
	s.check(s.w.calendar.Redemptions() == redemptions, "still nothing was redeemed")

	if v, err = s.alice.ask(ctx, "tea with Zoe tomorrow at 5pm"); err != nil {
		return err
	}
	s.check(v.Heard.Booked != nil && s.count(s.alice) == hers+1 && s.count(s.bob) == his, "Alice's own connection still works, and books in her calendar%s", v.failing())
	return nil
}

// finishAs completes the session of a link with somebody's access key and a person's token, without the web app's
// checks.
func (s *story) finishAs(ctx context.Context, client *tabard.Client, link string, who *actor) error {
	u, err := url.Parse(link)
	if err != nil {
		return err
	}
	session := s.w.web.sessions.live(who.atWork.Email)
	if session == nil {
		return errStuck
	}
	return client.Complete(ctx, u.Query().Get("request_uri"), tabard.UserToken(session.who.Token))
}

// otherAgent lets another team's agent, with its own key, try for Alice's token in three ways.
func (s *story) otherAgent(ctx context.Context) error {
	s.step("Another agent, with its own key, asks for Alice's token")
	session := s.w.web.sessions.live(s.alice.atWork.Email)
	if session == nil {
		return errStuck
	}
	stolen := make(http.Header)
	if !s.w.agent.witness.betray(secret.New(session.who.Token).Fingerprint(), stolen, tabard.HeaderWorkloadAccessToken) {
		return errStuck
	}
	hers, tokenCalls := s.count(s.alice), len(s.w.calendar.TokenRequests())
	n, err := invoke(ctx, s.w.other.url, stolen)
	if err != nil {
		return err
	}
	s.check(refused(n), "with Alice's workload access token, stolen from the first agent: refused (403)")

	lent := http.Header{"Authorization": {"Bearer " + session.who.Token}}
	if n, err = invoke(ctx, s.w.impostor.url, lent); err != nil {
		return err
	}
	s.check(refused(n), "with Alice's own token, claiming to be %s: refused (403)", agentName)

	lent.Set(tabard.HeaderReturnURL, s.w.webURL+"/connected")
	if n, err = invoke(ctx, s.w.other.url, lent); err != nil {
		return err
	}
	s.check(n.Consent != nil && n.Booked == nil, "with Alice's own token, as itself: a consent of its own, not her token")
	s.check(s.count(s.alice) == hers && len(s.w.calendar.TokenRequests()) == tokenCalls, "nothing was booked, redeemed or refreshed")
	return nil
}

func refused(n news) bool {
	return n.Failed != nil && n.Failed.Code == string(tabard.ErrDenied) && n.Booked == nil && n.Consent == nil
}

// invoke asks an agent directly and returns its first answer that matters, without waiting for a consent.
func invoke(ctx context.Context, agent string, header http.Header) (news, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	body, err := json.Marshal(invocation{Prompt: "spying tomorrow at noon", State: "none"})
	if err != nil {
		return news{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, agent+"/invocations", bytes.NewReader(body))
	if err != nil {
		return news{}, err
	}
	req.Header = header.Clone()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return news{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 1<<20))
	for lines.Scan() {
		var n news
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			return n, err
		}
		if n.Understood == nil {
			return n, nil
		}
	}
	return news{}, fmt.Errorf("%w: the agent said nothing", errStuck)
}

// noSecrets closes the account: each release has its audit record, and no record has a secret.
func (s *story) noSecrets(ctx context.Context) error {
	s.step("The audit trail")
	all, err := s.w.trail.since(ctx, s.begun)
	if err != nil {
		return err
	}
	released, refusals, text := 0, 0, new(strings.Builder)
	for _, r := range all {
		switch {
		case r.denied():
			refusals++
		case r.Outcome == "released":
			released++
		}
		_, _ = fmt.Fprintf(text, "%+v\n", r) // a Builder takes everything
	}
	s.fact("records", "%d: %d releases, %d refusals", len(all), released, refusals)
	booked := s.count(s.alice) + s.count(s.bob)
	s.check(released == booked, "one release for each of the %d bookings", booked)
	// JSON Web Tokens, workload access tokens, and the stand-in's codes and tokens begin so.
	clean := true
	signs := []string{"eyJ", "wat1.", "ya29.", "1//", "4/"}
	for _, a := range []*actor{s.alice, s.bob} {
		signs = append(signs, a.atWork.Subject(), a.atWork.Name, a.atWork.FullName)
	}
	for _, sign := range signs {
		clean = clean && !strings.Contains(text.String(), sign)
	}
	s.check(clean, "no record holds a token, a code or a user's name")
	return nil
}
