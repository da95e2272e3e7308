package identity_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// shelf knows the provider "cal".
type shelf struct{}

// ProviderUIDs implements identity.ProviderNames.
func (shelf) ProviderUIDs(_ context.Context, _ access.Account, name string) (map[identity.ProviderKind]string, error) {
	switch name {
	case "cal":
		return map[identity.ProviderKind]string{identity.OAuth2Kind: "cp-1"}, nil
	case "both":
		return map[identity.ProviderKind]string{identity.OAuth2Kind: "cp-2", identity.APIKeyKind: "ak-2"}, nil
	}
	return nil, nil
}

// delegating is a world with a workload identity and a user who delegates to it.
func delegating(t *testing.T) (w *world, app, agent access.Caller) {
	w = newWorld(t)
	w.trust()
	w.workload("agent-a", nil)
	w.workload("agent-b", nil)
	return w, caller(access.ConsentApp, "agent-a"), caller(access.Agent, "agent-*")
}

func (w *world) delegation(change func(*identity.NewDelegation)) identity.NewDelegation {
	n := identity.NewDelegation{
		Workload: "agent-a", JWT: secret.New(w.jwt(nil)), Grants: []identity.Grant{{Provider: "cal", Scopes: []string{"read"}}},
		Until: w.clock.now().Add(time.Hour), Note: "while I sleep",
	}
	if change != nil {
		change(&n)
	}
	return n
}

func TestCreateDelegationRefuses(t *testing.T) {
	w, app, agent := delegating(t)
	for what, c := range map[string]struct {
		by     access.Caller
		change func(*identity.NewDelegation)
		code   fault.Code
		says   string
	}{
		"the agent itself":    {agent, nil, fault.Denied, "consent-app"},
		"an administrator":    {caller(access.Admin), nil, fault.Denied, "consent-app"},
		"another application": {caller(access.ConsentApp, "agent-b"), nil, fault.Denied, "pairing"},
		"the past":            {app, func(n *identity.NewDelegation) { n.Until = w.clock.now() }, fault.Invalid, "passed"},
		"91 days":             {app, func(n *identity.NewDelegation) { n.Until = w.clock.now().Add(91 * 24 * time.Hour) }, fault.Invalid, "90 days"},
		"no such provider":    {app, func(n *identity.NewDelegation) { n.Grants[0].Provider = "mail" }, fault.NotFound, "mail"},
		"a provider twice":    {app, func(n *identity.NewDelegation) { n.Grants = append(n.Grants, n.Grants[0]) }, fault.Invalid, "twice"},
		"a token of somebody": {app, func(n *identity.NewDelegation) { n.JWT = secret.New("a.b.c") }, fault.Unauthenticated, "user token"},
		"an expired token": {app, func(n *identity.NewDelegation) {
			n.JWT = secret.New(w.jwt(map[string]any{"exp": w.clock.now().Add(-time.Hour).Unix()}))
		}, fault.Unauthenticated, "expired"},
		"no such workload":       {caller(access.ConsentApp, "*"), func(n *identity.NewDelegation) { n.Workload = "agent-c" }, fault.NotFound, ""},
		"a workload of nobody's": {app, func(n *identity.NewDelegation) { n.Workload = "agent-c" }, fault.Denied, ""},
	} {
		_, err := w.CreateDelegation(t.Context(), c.by, w.delegation(c.change), shelf{})
		if fault.CodeOf(err) != c.code || !strings.Contains(fault.Public(err).Msg, c.says) {
			t.Errorf("%s: got %v, want %s that says %q", what, err, c.code, c.says)
		}
	}
	list, _, err := w.ListDelegations(t.Context(), w.root, identity.DelegationQuery{}, "", 100)
	if err != nil || len(list) != 0 {
		t.Errorf("refused delegations were stored: %d, %v", len(list), err)
	}
}

func TestDelegationMintsUntilItEnds(t *testing.T) {
	w, app, agent := delegating(t)
	d := ok(w.CreateDelegation(t.Context(), app, w.delegation(nil), shelf{}))(t)
	if bytes.Contains(d.Delegation.Note, []byte("sleep")) {
		t.Error("the note is stored in clear")
	}
	mint := func() (identity.Minted, error) {
		return w.MintTokenForDelegation(t.Context(), agent, "agent-a", d.ID)
	}
	first := ok(mint())(t)
	if want := w.clock.now().Add(identity.TokenLife); !first.Expires.Equal(want) {
		t.Errorf("expires %s, want %s", first.Expires, want)
	}
	token, _, err := w.OpenToken(t.Context(), account, first.Token)
	must(t, err)
	if token.Delegation() != d.ID || token.User.Subject != "alice" || token.Retains() || token.UserRef != d.UserRef {
		t.Errorf("the token says delegation %q, user %q, retains %t", token.Delegation(), token.User.Subject, token.Retains())
	}
	scopes, granted, bounded := token.Delegated("cp-1")
	if !bounded || !granted || fmt.Sprint(scopes) != "[read]" {
		t.Errorf("delegated: %v %t %t", scopes, granted, bounded)
	}
	w.clock.add(55 * time.Minute)
	last := ok(mint())(t)
	if !last.Expires.Equal(d.Until) {
		t.Errorf("the last token expires %s, want with the delegation at %s", last.Expires, d.Until)
	}
	w.clock.add(5 * time.Minute)
	_, err = mint()
	if !errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after its end: %v, want it denied because it expired", err)
	}
	_, _, err = w.OpenToken(t.Context(), account, last.Token)
	wantCode(t, "a token of an expired delegation", err, fault.Unauthenticated)
	q := identity.DelegationQuery{Workload: "agent-a", User: &identity.UserSelector{Issuer: issuerURL, Subject: "alice"}}
	list, _, err := w.ListDelegations(t.Context(), caller(access.Admin), q, "", 10)
	if err != nil || len(list) != 1 || list[0].State != identity.DelegationExpired || list[0].Note != "while I sleep" || list[0].LastUsed.IsZero() {
		t.Errorf("listed %+v, %v, want it expired, with its note", list, err)
	}
}

func TestDelegationIsOneAgentsAndOneUsers(t *testing.T) {
	w, app, agent := delegating(t)
	d := ok(w.CreateDelegation(t.Context(), app, w.delegation(nil), shelf{}))(t)
	_, foreign := w.MintTokenForDelegation(t.Context(), agent, "agent-b", d.ID)
	_, absent := w.MintTokenForDelegation(t.Context(), agent, "agent-b", strings.Repeat("x", len(d.ID)))
	wantCode(t, "another agent's", foreign, fault.NotFound)
	if strings.ReplaceAll(foreign.Error(), d.ID, "") != strings.ReplaceAll(absent.Error(), strings.Repeat("x", len(d.ID)), "") {
		t.Errorf("another agent's delegation looks unlike none: %v, %v", foreign, absent)
	}
	_, err := w.MintTokenForDelegation(t.Context(), caller(access.Agent, "agent-b"), "agent-a", d.ID)
	wantCode(t, "an agent that is not paired", err, fault.Denied)
	_, err = w.MintTokenForDelegation(t.Context(), app, "agent-a", d.ID)
	wantCode(t, "the application", err, fault.Denied)
	_, _, err = w.ListDelegations(t.Context(), app, identity.DelegationQuery{Workload: "agent-a"}, "", 10)
	wantCode(t, "the application lists without the user", err, fault.Invalid)
	_, _, err = w.ListDelegations(t.Context(), caller(access.ConsentApp, "agent-b"), identity.DelegationQuery{Workload: "agent-a", JWT: secret.New(w.jwt(nil))}, "", 10)
	wantCode(t, "another application lists", err, fault.Denied)
}

// What ends tokens of the user ends the user's delegations, for good.
func TestDelegationEndsWithTheUser(t *testing.T) {
	alice := identity.UserSelector{Issuer: issuerURL, Subject: "alice"}
	for what, end := range map[string]func(w *world, d identity.DelegationView) error{
		"an administrator": func(w *world, d identity.DelegationView) error {
			_, err := w.EndDelegation(w.t.Context(), caller(access.Admin), d.ID, secret.Text{})
			return err
		},
		"the user is disabled and enabled": func(w *world, _ identity.DelegationView) error {
			_, err := w.DisableUser(w.t.Context(), w.root, alice, "")
			_, again := w.EnableUser(w.t.Context(), w.root, alice)
			return errors.Join(err, again)
		},
		"the issuer is disabled and enabled": func(w *world, _ identity.DelegationView) error {
			_, err := w.DisableIssuer(w.t.Context(), w.root, issuerURL, "")
			_, again := w.EnableIssuer(w.t.Context(), w.root, issuerURL)
			return errors.Join(err, again)
		},
		"the user's access is revoked": func(w *world, d identity.DelegationView) error {
			n, err := w.EndDelegations(w.t.Context(), account, identity.DelegationFilter{UserRef: d.UserRef})
			if n != 1 {
				err = errors.Join(err, fmt.Errorf("%d were ended", n))
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			w, app, agent := delegating(t)
			d := ok(w.CreateDelegation(t.Context(), app, w.delegation(nil), shelf{}))(t)
			m := ok(w.MintTokenForDelegation(t.Context(), agent, "agent-a", d.ID))(t)
			must(t, end(w, d))
			_, _, err := w.OpenToken(t.Context(), account, m.Token)
			wantCode(t, "a token of before", err, fault.Unauthenticated)
			_, err = w.MintTokenForDelegation(t.Context(), agent, "agent-a", d.ID)
			wantCode(t, "the next mint", err, fault.Denied)
			list, _, err := w.ListDelegations(t.Context(), w.root, identity.DelegationQuery{}, "", 10)
			if err != nil || len(list) != 1 || list[0].State != identity.DelegationEnded {
				t.Errorf("listed %+v, %v, want one that has ended", list, err)
			}
			again := ok(w.CreateDelegation(t.Context(), app, w.delegation(nil), shelf{}))(t)
			ok(w.MintTokenForDelegation(t.Context(), agent, "agent-a", again.ID))(t)
		})
	}
}

// A user who is disabled now gets nothing under a delegation, and makes none.
func TestDelegationOfADisabledUser(t *testing.T) {
	w, app, agent := delegating(t)
	d := ok(w.CreateDelegation(t.Context(), app, w.delegation(nil), shelf{}))(t)
	ok(w.DisableWorkload(t.Context(), w.root, "agent-a", "a leak"))(t)
	_, err := w.MintTokenForDelegation(t.Context(), agent, "agent-a", d.ID)
	wantCode(t, "a disabled agent", err, fault.Denied)
	_, err = w.CreateDelegation(t.Context(), app, w.delegation(nil), shelf{})
	wantCode(t, "a delegation to a disabled agent", err, fault.Denied)
	ok(w.EnableWorkload(t.Context(), w.root, "agent-a"))(t)
	ok(w.MintTokenForDelegation(t.Context(), agent, "agent-a", d.ID))(t)
}
