package broker_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// M06: a delegation for the calendar does not end the mail connection, also where both are at one provider.
func TestM06_ReportsStayWithinADelegation(t *testing.T) {
	w := newWorld(t)
	w.provider.Queue("/token", edit(func(m map[string]any) { delete(m, "refresh_token") }))
	mail := w.consent("alice", scopes("mail.send"))
	calendar := w.delegated("alice", identity.Grant{Provider: "cal", Scopes: []string{"calendar.read"}})
	if _, err := w.Token(t.Context(), w.agentA, ask(calendar, scopes("calendar.read"))); !errors.Is(err, fault.Denied) {
		t.Fatalf("a release beyond the delegation: %v", err)
	}
	if _, err := w.report(w.agentA, calendar, mail.Connection); !errors.Is(err, fault.Denied) {
		t.Errorf("a report beyond the delegation: %v", err)
	}
	if c := w.connection(mail.Connection); c.State != broker.Active {
		t.Errorf("the connection that the delegation does not include is %s", c.State)
	}
	if _, err := w.report(w.agentA, w.delegated("alice", identity.Grant{Provider: "cal", Scopes: []string{"mail.send"}}), mail.Connection); err != nil {
		t.Errorf("a report within the delegation: %v", err)
	}
}

// seen is the rule table, and remembers what it was asked.
type seen struct {
	access.Table
	asked []access.Facts
}

func (s *seen) Decide(ctx context.Context, c access.Caller, a access.Action, f access.Facts) (access.Decision, error) {
	if a == access.ReportTokenInvalid {
		s.asked = append(s.asked, f)
	}
	return s.Table.Decide(ctx, c, a, f)
}

// M02 and M06: a policy sees the scopes of the token that is reported, and that they are not known: no list covers
// those.
func TestM06_PoliciesSeeTheScopesOfAReport(t *testing.T) {
	w := newWorld(t)
	mail, none := w.consent("alice", scopes("mail.send")), w.consent("bob", scopes())
	decider := &seen{}
	guard := access.NewGuard(access.Config{Log: w.db, Now: w.clock.now, Decider: decider})
	t.Cleanup(guard.Close)
	config := w.config
	config.Guard = guard
	var err error
	v := *w
	v.Broker, err = broker.New(config)
	must(t, err)
	for user, c := range map[string]broker.Outcome{"alice": mail, "bob": none} {
		decider.asked = nil
		_, err := v.report(w.agentA, w.wat(w.agentA, user), c.Connection)
		must(t, err)
		if len(decider.asked) == 0 {
			t.Fatal("no decision")
		}
		f := decider.asked[0]
		if !slices.Equal(f.Scopes, c.Granted) || f.ScopesUnknown != (len(c.Granted) == 0) {
			t.Errorf("%s: the decision sees the scopes %q, unknown %t, of a token that has %q", user, f.Scopes, f.ScopesUnknown, c.Granted)
		}
	}
}
