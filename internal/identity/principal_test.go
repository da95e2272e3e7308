package identity_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	rootKeyID  = "TABARDROOTROOTROOT01"
	rootSecret = "tabard_rootrootrootrootrootrootrootrootroot"
)

// bootstrap makes the root principal and returns it as a caller.
func (w *world) bootstrap() access.Caller {
	w.t.Helper()
	must(w.t, w.EnsureRoot(w.t.Context(), account, rootKeyID, secret.New(rootSecret)))
	return ok(w.Credential(w.t.Context(), rootKeyID))(w.t).Caller
}

func TestPrincipals(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	admin := caller(access.Admin)
	p := ok(w.CreatePrincipal(ctx, admin, identity.NewPrincipal{Name: "cal", Roles: []access.Role{access.Agent}, Workloads: []string{"calendar-*"}}))(t)
	if p.ID == "" || p.Account != account || p.Disabled {
		t.Errorf("got %+v", p)
	}
	_, err := w.CreatePrincipal(ctx, admin, identity.NewPrincipal{Name: "cal", Roles: []access.Role{access.Auditor}})
	wantCode(t, "the same name", err, fault.Conflict)
	for _, n := range []identity.NewPrincipal{
		{Roles: []access.Role{access.Admin}}, {Name: "a b", Roles: []access.Role{access.Admin}}, {Name: strings.Repeat("a", 129), Roles: []access.Role{access.Admin}}, {Name: "root", Roles: []access.Role{access.Root}},
		{Name: "x"}, {Name: "x", Roles: []access.Role{"king"}}, {Name: "x", Roles: []access.Role{access.Admin, access.Admin}}, {Name: "x", Roles: []access.Role{access.Agent}},
		{Name: "x", Roles: []access.Role{access.Admin}, Workloads: []string{"a"}}, {Name: "x", Roles: []access.Role{access.Agent}, Workloads: []string{"a/b"}},
		{Name: "x", Roles: []access.Role{access.Agent}, Workloads: []string{"*a*a*a*a*"}}, {Name: "x", Roles: []access.Role{access.Agent}, Workloads: []string{""}},
	} {
		_, err := w.CreatePrincipal(ctx, w.root, n)
		wantCode(t, fmt.Sprintf("%.60v", n), err, fault.Invalid)
	}
	for _, role := range []access.Role{access.Agent, access.ConsentApp, access.Auditor} {
		_, err := w.CreatePrincipal(ctx, caller(role, "*"), identity.NewPrincipal{Name: "y", Roles: []access.Role{access.Auditor}})
		wantCode(t, string(role), err, fault.Denied)
	}
	// Both roles are allowed, and the record says what that means.
	ok(w.CreatePrincipal(ctx, admin, identity.NewPrincipal{Name: "both", Roles: []access.Role{access.Agent, access.ConsentApp}, Workloads: []string{"*"}}))(t)
	if !slices.ContainsFunc(w.records(), func(r access.Record) bool {
		return r.Facts.Resource == "principal/both" && strings.Contains(r.Facts.Detail, "confirm its own consent")
	}) {
		t.Error("no record says that the agent can confirm its own consent")
	}
	names := []string{}
	for after := ""; ; {
		page, next, err := w.Principals(ctx, caller(access.Auditor), after, 1)
		must(t, err)
		for _, p := range page {
			names = append(names, p.Name)
		}
		if after = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"both", "cal"}, names); diff != "" {
		t.Errorf("pages of one (-want +got):\n%s", diff)
	}
	foreign := access.Caller{Account: other, Principal: "prn-x", Roles: []access.Role{access.Root}}
	if page, _, err := w.Principals(ctx, foreign, "", 0); err != nil || len(page) != 0 {
		t.Errorf("another account sees %v, %v", page, err)
	}
	_, err = w.SetPrincipalDisabled(ctx, foreign, "cal", true)
	wantCode(t, "another account disables it", err, fault.NotFound)
}

func TestRootIsGrantedByRootOnly(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	root, admin := w.bootstrap(), caller(access.Admin)
	second := identity.NewPrincipal{Name: "second", Roles: []access.Role{access.Root, access.Admin}}
	_, err := w.CreatePrincipal(ctx, admin, second)
	wantCode(t, "an admin makes a root principal", err, fault.Denied)
	_, _, err = w.CreateAccessKey(ctx, admin, "root")
	wantCode(t, "an admin makes a key of root", err, fault.Denied)
	_, err = w.SetAccessKeyDisabled(ctx, admin, rootKeyID, true)
	wantCode(t, "an admin disables root's key", err, fault.Denied)
	_, err = w.SetPrincipalDisabled(ctx, admin, "root", true)
	wantCode(t, "an admin disables root", err, fault.Denied)
	for _, r := range w.records() {
		if r.Name == "admin" && r.Allow {
			t.Errorf("got a record that allows the admin %s on %s", r.Action, r.Facts.Resource)
		}
	}

	ok(w.CreatePrincipal(ctx, root, second))(t)
	ok(w.SetPrincipalDisabled(ctx, root, "root", true))(t)
	_, err = w.Credential(ctx, rootKeyID)
	wantCode(t, "the key of a disabled principal", err, fault.SignatureUnknown)
	ok(w.SetPrincipalDisabled(ctx, root, "second", true))(t) // the last enabled one too: RecoverRoot is the way back
	must(t, w.EnsureRoot(ctx, account, rootKeyID, secret.New(rootSecret)))
	_, err = w.Credential(ctx, rootKeyID)
	wantCode(t, "a restart does not enable what was disabled", err, fault.SignatureUnknown)
	ok(w.SetPrincipalDisabled(ctx, root, "root", false))(t)
	ok(w.Credential(ctx, rootKeyID))(t)
}

func TestB02_AccessKeys(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	admin := caller(access.Admin)
	p := ok(w.CreatePrincipal(ctx, admin, identity.NewPrincipal{Name: "cal", Roles: []access.Role{access.Agent}, Workloads: []string{"a", "b-*"}}))(t)
	k, sk, err := w.CreateAccessKey(ctx, admin, "cal")
	must(t, err)
	if !regexp.MustCompile(`^TABARD[A-Z0-9]{14}$`).MatchString(k.ID) || !regexp.MustCompile(`^tabard_[0-9A-Za-z]{40}$`).MatchString(sk.Expose()) || k.Secret != nil {
		t.Errorf("got key %+v with a secret of %d characters", k, len(sk.Expose()))
	}
	cred := ok(w.Credential(ctx, k.ID))(t)
	want := access.Caller{Account: account, Principal: p.ID, Name: "cal", AccessKey: k.ID, Roles: p.Roles, Workloads: p.Workloads}
	if diff := cmp.Diff(want, cred.Caller); diff != "" {
		t.Errorf("caller (-want +got):\n%s", diff)
	}
	if got := ok(cred.Secret(ctx))(t); !got.Equal(sk) {
		t.Error("the secret of the credential is another one")
	}
	k2, sk2, err := w.CreateAccessKey(ctx, admin, "cal")
	must(t, err)
	if sk2.Equal(sk) || k2.ID == k.ID {
		t.Error("got one key twice")
	}
	_, _, err = w.CreateAccessKey(ctx, admin, "cal")
	wantCode(t, "a third enabled key", err, fault.Limit)

	ok(w.SetAccessKeyDisabled(ctx, admin, k.ID, true))(t)
	_, disabled := w.Credential(ctx, k.ID)
	_, unknown := w.Credential(ctx, "TABARDAAAAAAAAAAAAAA")
	wantCode(t, "disabled key", disabled, fault.SignatureUnknown)
	if disabled.Error() != unknown.Error() {
		t.Errorf("got %v for a disabled and %v for an unknown key, want no difference", disabled, unknown)
	}
	for _, id := range []string{"", "short", strings.Repeat("A", 129), "TABARD AAAAAAAAAAAAA", "TABARD'--AAAAAAAAAAA"} {
		_, err := w.Credential(ctx, id)
		wantCode(t, fmt.Sprintf("%.20q", id), err, fault.SignatureUnknown)
	}
	ok(w.SetAccessKeyDisabled(ctx, admin, k.ID, false))(t)
	if again := ok(w.Credential(ctx, k.ID))(t); again.Version <= cred.Version {
		t.Errorf("got version %d after %d, want it to rise with each change", again.Version, cred.Version)
	}
	ok(w.SetPrincipalDisabled(ctx, admin, "cal", true))(t)
	for _, id := range []string{k.ID, k2.ID} {
		_, err := w.Credential(ctx, id)
		wantCode(t, "key of a disabled principal", err, fault.SignatureUnknown)
	}

	keys, next, err := w.AccessKeys(ctx, caller(access.Auditor), "cal", "", 10)
	must(t, err)
	if len(keys) != 2 || next != "" || keys[0].Secret != nil || keys[1].Secret != nil {
		t.Errorf("got %d keys, cursor %q, want two without secrets", len(keys), next)
	}
	_, _, err = w.AccessKeys(ctx, admin, "nobody", "", 10)
	wantCode(t, "keys of nobody", err, fault.NotFound)
	foreign := access.Caller{Account: other, Principal: "prn-x", Roles: []access.Role{access.Root}}
	_, err = w.SetAccessKeyDisabled(ctx, foreign, k.ID, true)
	wantCode(t, "another account", err, fault.NotFound)
	_, err = w.SetAccessKeyDisabled(ctx, caller(access.Agent, "*"), k.ID, true)
	wantCode(t, "an agent", err, fault.Denied)
}

// A row of keys whose principal was changed in the database does not open (threat D05).
func TestAccessKeys_SecretIsBoundToItsPrincipal(t *testing.T) {
	w := newWorld(t)
	root := w.bootstrap()
	p := ok(w.CreatePrincipal(t.Context(), root, identity.NewPrincipal{Name: "cal", Roles: []access.Role{access.Agent}, Workloads: []string{"a"}}))(t)
	k, _, err := w.CreateAccessKey(t.Context(), root, "cal")
	must(t, err)
	stored, _, err := w.db.KeyAndPrincipal(t.Context(), k.ID)
	must(t, err)
	moved := stored
	moved.ID, moved.Principal = "TABARDAAAAAAAAAAAAAA", p.ID
	must(t, w.db.CreateAccessKey(t.Context(), moved))
	_, err = ok(w.Credential(t.Context(), moved.ID))(t).Secret(t.Context())
	wantCode(t, "the secret under another id", err, fault.Internal)

	w.config.Store = takenKeys{Store: w.db, by: ok(w.db.PrincipalByName(t.Context(), account, "cal"))(t)}
	s := ok(identity.New(w.config))(t)
	_, err = ok(s.Credential(t.Context(), rootKeyID))(t).Secret(t.Context())
	wantCode(t, "root's key under another principal", err, fault.Internal)
}

// takenKeys is a database in which somebody gave every key to one principal.
type takenKeys struct {
	identity.Store
	by identity.Principal
}

func (s takenKeys) KeyAndPrincipal(ctx context.Context, id string) (identity.AccessKey, identity.Principal, error) {
	k, _, err := s.Store.KeyAndPrincipal(ctx, id)
	k.Principal = s.by.ID
	return k, s.by, err
}

func TestEnsureRoot(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	c := w.bootstrap()
	if !c.Has(access.Root) || c.Name != "root" || c.AccessKey != rootKeyID {
		t.Errorf("got caller %+v", c)
	}
	if got := ok(ok(w.Credential(ctx, rootKeyID))(t).Secret(ctx))(t); !got.Equal(secret.New(rootSecret)) {
		t.Error("the secret is not the given one")
	}
	records := len(w.records())
	must(t, w.EnsureRoot(ctx, account, rootKeyID, secret.New(rootSecret)))
	if n := len(w.records()); n != records || records != 1 {
		t.Errorf("got %d records, then %d, want one for the first start alone", records, n)
	}
	must(t, w.EnsureRoot(ctx, account, "TABARDROOTROOTROOT02", secret.New(rootSecret+"2")))
	if again := ok(w.Credential(ctx, "TABARDROOTROOTROOT02"))(t); again.Caller.Principal != c.Principal {
		t.Errorf("got principal %s for the second key, want %s", again.Caller.Principal, c.Principal)
	}
	err := w.EnsureRoot(ctx, account, rootKeyID, secret.New(rootSecret+"x"))
	wantCode(t, "another secret", err, fault.Conflict)
	if strings.Contains(err.Error(), "rootroot") {
		t.Errorf("got %v, want no secret in it", err)
	}
	wantCode(t, "another account's key", w.EnsureRoot(ctx, other, rootKeyID, secret.New(rootSecret)), fault.Conflict)
	wantCode(t, "short id", w.EnsureRoot(ctx, account, "root", secret.New(rootSecret)), fault.Invalid)
	wantCode(t, "short secret", w.EnsureRoot(ctx, account, "TABARDROOTROOTROOT03", secret.New("password")), fault.Invalid)
}

func TestL04_ExampleKeysAreRefused(t *testing.T) {
	const id, key = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	w := newWorld(t)
	wantCode(t, "id", w.EnsureRoot(t.Context(), account, id, secret.New(rootSecret)), fault.Invalid)
	wantCode(t, "secret", w.EnsureRoot(t.Context(), account, rootKeyID, secret.New(key)), fault.Invalid)
	dev := newWorld(t, func(c *identity.Config) { c.Dev = true })
	must(t, dev.EnsureRoot(t.Context(), account, id, secret.New(key)))
}

func TestNew_SaysWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*identity.Config){
		"store": func(c *identity.Config) { c.Store = nil }, "guard": func(c *identity.Config) { c.Guard = nil }, "issuer": func(c *identity.Config) { c.Issuer = "" },
		"an issuer without audience": func(c *identity.Config) { c.Issuers = []identity.Issuer{{URL: issuerURL}} },
	} {
		config := w.config
		change(&config)
		if s, err := identity.New(config); err == nil || s != nil {
			t.Errorf("without a good %s: got %v, %v", name, s, err)
		}
	}
	if _, err := identity.New(w.config); errors.Is(err, fault.Internal) {
		t.Error(err)
	}
}

// M19: who may not touch principals learns from the refusal neither which exist nor which have the role root.
func TestM19_RefusalsDoNotTellWhoIsRoot(t *testing.T) {
	w := newWorld(t)
	var ids []string
	for name, role := range map[string]access.Role{"chief": access.Root, "clerk": access.Auditor} {
		_, err := w.CreatePrincipal(t.Context(), w.root, identity.NewPrincipal{Name: name, Roles: []access.Role{role}})
		must(t, err)
		k, _, err := w.CreateAccessKey(t.Context(), w.root, name)
		must(t, err)
		ids = append(ids, k.ID)
	}
	operations := map[string]struct {
		names []string
		do    func(c access.Caller, name string) error
	}{
		"CreateAccessKey": {[]string{"chief", "clerk", "nobody"}, func(c access.Caller, n string) error { _, _, err := w.CreateAccessKey(t.Context(), c, n); return err }},
		"DisablePrincipal": {[]string{"chief", "clerk", "nobody"}, func(c access.Caller, n string) error {
			_, err := w.SetPrincipalDisabled(t.Context(), c, n, true)
			return err
		}},
		"EnablePrincipal": {[]string{"chief", "clerk", "nobody"}, func(c access.Caller, n string) error {
			_, err := w.SetPrincipalDisabled(t.Context(), c, n, false)
			return err
		}},
		"DisableAccessKey": {append(ids, "TABARDNOBODYSKEY0000"), func(c access.Caller, n string) error {
			_, err := w.SetAccessKeyDisabled(t.Context(), c, n, true)
			return err
		}},
		"EnableAccessKey": {append(ids, "TABARDNOBODYSKEY0000"), func(c access.Caller, n string) error {
			_, err := w.SetAccessKeyDisabled(t.Context(), c, n, false)
			return err
		}},
	}
	for what, o := range operations {
		for _, c := range []access.Caller{caller(access.Auditor), caller(access.Agent, "agent-a"), caller(access.ConsentApp, "agent-a")} {
			said := map[string]bool{}
			for _, name := range o.names {
				err := o.do(c, name)
				wantCode(t, what+" by "+c.Name, err, fault.Denied)
				said[strings.ReplaceAll(fault.Public(err).Msg, name, "NAME")] = true
			}
			if len(said) != 1 {
				t.Errorf("%s by %s tells three principals apart: %v", what, c.Name, said)
			}
		}
		err := o.do(caller(access.Admin), o.names[0])
		if what == "CreateAccessKey" {
			wantCode(t, "an administrator on a principal with the role root", err, fault.Denied)
		}
	}
}
