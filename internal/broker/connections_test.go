package broker_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

func (w *world) list(q broker.ConnectionQuery) []string {
	w.t.Helper()
	list, next, err := w.Connections(w.t.Context(), w.admin, q, "", 10)
	must(w.t, err)
	if next != "" {
		w.t.Errorf("a page of %d continues", len(list))
	}
	ids := make([]string, 0, len(list))
	for _, v := range list {
		if len(v.Access)+len(v.Refresh)+len(v.Attributes) > 0 {
			w.t.Errorf("the list has the ciphertext of %s", v.ID)
		}
		ids = append(ids, v.ID)
	}
	return ids
}

func TestConnectionsAreListedByEveryFilter(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.consent("alice").Connection, w.consent("bob").Connection
	w.createProvider("mail", "SteadyOauth2")
	machine := w.token(w.agentA, ask(w.wat(w.agentA, "alice"), machine, at("mail"))).Connection
	uid := w.watForID(w.agentB, "u-1")
	p := w.pending(w.agentB, ask(uid))
	w.hold(p.Session)
	must(t, w.Complete(t.Context(), w.appB, p.Session, broker.UserIdentifier{ID: "u-1"}))
	asserted := w.token(w.agentB, ask(uid, session(p.Session))).Connection
	ref := w.connection(alice).User
	filter := func(f broker.ConnectionFilter) broker.ConnectionQuery {
		return broker.ConnectionQuery{ConnectionFilter: f}
	}
	for what, c := range map[string]struct {
		q    broker.ConnectionQuery
		want []string
	}{
		"all":                 {filter(broker.ConnectionFilter{}), []string{alice, bob, machine, asserted}},
		"workload":            {filter(broker.ConnectionFilter{Workload: "agent-b"}), []string{asserted}},
		"provider":            {filter(broker.ConnectionFilter{Provider: "mail"}), []string{machine}},
		"state":               {filter(broker.ConnectionFilter{State: broker.NeedsReauth}), nil},
		"reference":           {filter(broker.ConnectionFilter{User: ref}), []string{alice}},
		"issuer and subject":  {broker.ConnectionQuery{UserIssuer: issuerURL, UserSubject: "bob"}, []string{bob}},
		"asserted id":         {broker.ConnectionQuery{UserID: "u-1"}, []string{asserted}},
		"asserted id, proven": {broker.ConnectionQuery{UserID: "alice"}, nil},
		"two filters":         {broker.ConnectionQuery{ConnectionFilter: broker.ConnectionFilter{Workload: "agent-b"}, UserIssuer: issuerURL, UserSubject: "bob"}, nil},
	} {
		slices.Sort(c.want)
		if got := w.list(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", what, got, c.want)
		}
	}
	var paged []string
	for after := ""; ; {
		list, next, err := w.Connections(t.Context(), w.admin, broker.ConnectionQuery{}, after, 3)
		must(t, err)
		for _, v := range list {
			paged = append(paged, v.ID)
		}
		if after = next; after == "" {
			break
		}
	}
	if want := w.list(broker.ConnectionQuery{}); !slices.Equal(paged, want) {
		t.Errorf("pages of three: got %v, want %v", paged, want)
	}
	for what, q := range map[string]broker.ConnectionQuery{
		"two users": {ConnectionFilter: broker.ConnectionFilter{User: ref}, UserID: "u-1"}, "no issuer": {UserSubject: "x"}, "no subject": {UserIssuer: issuerURL},
	} {
		_, _, err := w.Connections(t.Context(), w.admin, q, "", 10)
		wantCode(t, what, err, fault.Invalid)
	}
}

// Negative space: whoever may not look learns nothing, and another account's connection does not exist.
func TestConnectionsAreNotForEverybody(t *testing.T) {
	w := newWorld(t)
	id := w.consent("alice").Connection
	stranger := caller(other, "stranger", access.Root)
	auditor := caller(account, "auditor", access.Auditor)
	for name, op := range map[string]func(c access.Caller, id string) error{
		"get": func(c access.Caller, id string) error { _, err := w.Broker.Connection(t.Context(), c, id); return err },
		"revoke": func(c access.Caller, id string) error {
			_, err := w.RevokeConnection(t.Context(), c, id, false)
			return err
		},
		"delete": func(c access.Caller, id string) error { return w.DeleteConnection(t.Context(), c, id) },
		"transfer": func(c access.Caller, id string) error {
			_, err := w.TransferConnection(t.Context(), c, id, "agent-b")
			return err
		},
	} {
		wantCode(t, name+" by another account", op(stranger, id), fault.NotFound)
		wantCode(t, name+" of nothing", op(w.admin, "cn_nothing"), fault.NotFound)
		for _, c := range []access.Caller{w.agentA, w.appA} {
			for _, id := range []string{id, "cn_nothing"} {
				wantCode(t, name+" by "+c.Name, op(c, id), fault.Denied)
			}
		}
		if name != "get" {
			wantCode(t, name+" by the auditor", op(auditor, id), fault.Denied)
		} else {
			must(t, op(auditor, id))
		}
	}
	_, _, err := w.Connections(t.Context(), w.agentA, broker.ConnectionQuery{}, "", 10)
	wantCode(t, "list by an agent", err, fault.Denied)
	list, _, err := w.Connections(t.Context(), stranger, broker.ConnectionQuery{}, "", 10)
	must(t, err)
	if len(list) != 0 {
		t.Errorf("another account lists %v", list)
	}
	if c := w.connection(id); c.State != broker.Active || w.provider.Hits(revokePath) != 0 {
		t.Errorf("the connection is %s after all that", c.State)
	}
}

func TestDeletedConnectionIsGone(t *testing.T) {
	w := newWorld(t)
	out := w.consent("alice")
	must(t, w.DeleteConnection(t.Context(), w.admin, out.Connection))
	_, err := w.db.ConnectionByID(t.Context(), account, out.Connection)
	wantCode(t, "the row", err, fault.NotFound)
	wantCode(t, "again", w.DeleteConnection(t.Context(), w.admin, out.Connection), fault.NotFound)
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
}

func TestTransferMovesTheTokens(t *testing.T) {
	w := newWorld(t)
	out := w.consent("alice")
	before := w.connection(out.Connection)
	v, err := w.TransferConnection(t.Context(), w.admin, out.Connection, "agent-b")
	must(t, err)
	if v.WorkloadName != "agent-b" || v.ID != out.Connection || v.Generation != before.Generation+1 || len(v.Access) != 0 {
		t.Errorf("got %+v", v)
	}
	_, err = w.db.Connection(t.Context(), account, before.Key)
	wantCode(t, "the row under its former key", err, fault.NotFound)
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
	if got := w.token(w.agentB, ask(w.wat(w.agentB, "alice"))); !got.AccessToken.Equal(out.AccessToken) {
		t.Error("the new owner got another token")
	}
	w.clock.add(2 * time.Hour)
	if got := w.token(w.agentB, ask(w.wat(w.agentB, "alice"))); got.AccessToken.Equal(out.AccessToken) || got.Connection != out.Connection {
		t.Error("the new owner's token was not refreshed")
	}
	var both bool
	for _, r := range w.records() {
		both = both || r.Action == access.TransferConnection && r.Facts.Workload == "agent-b" && r.Facts.Detail == "from workload identity agent-a"
	}
	if !both {
		t.Error("no record has both names")
	}
}

func TestTransferIsRefused(t *testing.T) {
	w := newWorld(t)
	w.workloadOf(w.root, identity.NewWorkload{Name: "strict"})
	alice := w.consent("alice").Connection
	transfer := func(id, to string) error {
		_, err := w.TransferConnection(t.Context(), w.admin, id, to)
		return err
	}
	wantCode(t, "to itself", transfer(alice, "agent-a"), fault.Conflict)
	wantCode(t, "to nobody", transfer(alice, "nobody"), fault.NotFound)
	machine := w.token(w.agentA, ask(w.wat(w.agentA, "alice"), machine)).Connection
	wantCode(t, "of a machine's token", transfer(machine, "agent-b"), fault.Conflict)

	wat := w.wat(w.agentB, "alice")
	p := w.pending(w.agentB, ask(wat))
	w.hold(p.Session)
	must(t, w.complete(w.appB, p.Session, "alice"))
	wantError(t, "to one that has such a connection", transfer(alice, "agent-b"), fault.Conflict, "already")

	uid := w.watForID(w.agentA, "u-1")
	p = w.pending(w.agentA, ask(uid))
	w.hold(p.Session)
	must(t, w.Complete(t.Context(), w.appA, p.Session, broker.UserIdentifier{ID: "u-1"}))
	asserted := w.token(w.agentA, ask(uid, session(p.Session))).Connection
	wantCode(t, "of an asserted user to one that takes none", transfer(asserted, "strict"), fault.Invalid)
	_, err := w.RevokeConnection(t.Context(), w.admin, asserted, true)
	must(t, err)
	wantCode(t, "of a revoked one", transfer(asserted, "agent-b"), fault.Conflict)
	if got := w.token(w.agentA, ask(w.wat(w.agentA, "alice"))); got.Connection != alice {
		t.Errorf("the refused transfer left %s", got.Connection)
	}
}

func (w *world) report(c access.Caller, wat secret.Text, id string) (broker.ConnectionState, error) {
	return w.ReportTokenInvalid(w.t.Context(), c, wat, id)
}
