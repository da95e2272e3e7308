package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
	"github.com/tabard-id/tabard/internal/vault"
)

// database is what each test gets a copy of.
var database storetest.Template

const (
	account = access.Account("000000000000")
	other   = access.Account("111111111111")
)

// at is a time that the store keeps exactly.
var at = time.Date(2026, 11, 23, 10, 0, 0, 123e6, time.UTC)

// opener opens a store on one database, again and again.
type opener func(t testing.TB) *store.DB

// engines runs f on SQLite and on PostgreSQL.
func engines(t *testing.T, f func(t *testing.T, open opener)) {
	t.Run("sqlite", func(t *testing.T) {
		c := store.Config{SQLitePath: database.New(t)}
		f(t, func(t testing.TB) *store.DB { return open(t, c) })
	})
	t.Run("postgres", func(t *testing.T) {
		url := peer.Postgres(t)
		c := store.Config{PostgresURL: func() string { return url }}
		f(t, func(t testing.TB) *store.DB { return open(t, c) })
	})
}

func open(t testing.TB, c store.Config) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), c)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

// each runs a test of the suite on a fresh store of each engine.
func each(t *testing.T, f func(t *testing.T, db *store.DB)) {
	engines(t, func(t *testing.T, open opener) { f(t, open(t)) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

func got[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func wantCode(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got error %v, want %s", what, err, code)
	}
}

func wantEqual[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: got unlike want (-want +got):\n%s", what, diff)
	}
}

// race runs f in n goroutines and returns how many had no error. The others must have code.
func race(t testing.TB, n int, code fault.Code, f func(i int) error) (won int) {
	t.Helper()
	start, results := make(chan struct{}), make(chan error, n)
	for i := range n {
		go func() {
			<-start
			results <- f(i)
		}()
	}
	close(start)
	for range n {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, code):
			t.Errorf("a loser got error %v, want %s", err, code)
		}
	}
	return won
}

func aPrincipal(a access.Account, id, name string) identity.Principal {
	return identity.Principal{
		Account: a, ID: access.PrincipalID(id), Name: name, Roles: []access.Role{access.Agent, access.Auditor},
		Workloads: []string{"cal*", `quo"te\`}, Created: at,
	}
}

func aKey(a access.Account, id, principal string) identity.AccessKey {
	return identity.AccessKey{ID: id, Account: a, Principal: access.PrincipalID(principal), Secret: vault.Sealed{1, 0, 2}, Version: 1, Created: at}
}

func aWorkload(a access.Account, uid, name string) identity.Workload {
	return identity.Workload{
		Account: a, Name: name, UID: uid, Generation: 1, ReturnURLs: []string{"https://app.example/cb?a=1&b=<2>"},
		Tags: map[string]string{"team": "käse"}, Version: 1, Created: at, Updated: at.Add(time.Second),
	}
}

func aProvider(a access.Account, uid, name string) broker.Provider {
	return broker.Provider{
		Account: a, Name: name, UID: uid, CallbackID: "cb-" + string(a) + uid, Vendor: "CustomOauth2", ClientID: "client",
		AuthMethod: broker.AuthPost, Secret: vault.Sealed("sealed secret"), SecretID: "AbCdEf", DiscoveryURL: "https://op.example/d",
		PrivateKey: vault.Sealed("sealed key"), PublicKey: `{"kty":"EC"}`,
		Issuer: "https://op.example", AuthorizationEndpoint: "https://op.example/a", TokenEndpoint: "https://op.example/t",
		ResponseTypes: []string{"code"}, TokenAuthMethods: []broker.AuthMethod{broker.AuthBasic, broker.AuthNone},
		Identity: "identity-1", Tags: map[string]string{"k": "v"}, Version: 1, Created: at, Updated: at.Add(time.Minute),
	}
}

func aConnection(a access.Account, key, provider string) broker.Connection {
	return broker.Connection{
		Account: a, ID: "id-" + key, Key: key, Workload: "w1", User: "u1", Provider: provider, Flow: broker.FlowUserFederation,
		Asserted: true, Resources: []string{"https://r.example"}, Audiences: []string{"aud"}, Requested: []string{"a", "b"},
		Granted: []string{"a"}, Access: vault.Sealed("sealed access"), Refresh: vault.Sealed("sealed refresh"), TokenType: "Bearer",
		Expires: at.Add(time.Hour), State: broker.Active, Reason: "", Generation: 1, Identity: "identity-1", Created: at, Updated: at,
		Upstream: vault.Sealed("sealed upstream"), Claims: vault.Sealed("sealed claims"), Resource: "api://x",
		Parameters: "mac", ParamNames: []string{"hd"},
	}
}

func aFlow(a access.Account, id, provider string) broker.Flow {
	return broker.Flow{
		ID: id, Account: a, Workload: "w1", WorkloadName: "calendar", Generation: 2, Token: "tok", User: "u1", UserKind: "jwt",
		Provider: provider, ProviderName: "google", Identity: "identity-1", Resources: []string{"r"}, Audiences: []string{"x"},
		Resource: "api://x", Parameters: "mac", ParamNames: []string{"hd"}, Scopes: []string{"a", "b"}, Requested: []string{"a"}, ReturnURL: "https://app.example/cb", CustomState: vault.Sealed("cs"),
		CustomParams: vault.Sealed("cp"), Upstream: vault.Sealed("up"), Force: true, State: broker.FlowCreated, Created: at, Expires: at.Add(10 * time.Minute),
	}
}

func aVisit(state, flow string) broker.Visit {
	return broker.Visit{State: state, Flow: flow, Cookie: "cookie-" + state, Verifier: vault.Sealed("v"), Issuer: "https://op.example", IssSent: true, Created: at}
}

func attempt(c broker.Connection) broker.Attempt {
	return broker.Attempt{Account: c.Account, Subject: c.ID, Kind: "refresh", Generation: c.Generation, Started: at}
}

func TestPing(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) { must(t, db.Ping(t.Context())) })
}

func TestVaultRows(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		r := vault.Row{
			Account: vault.Server, Name: "default", KeyURI: "file:key", Wrapped: []byte{0, 1, 255}, Version: 1, Created: at, Modified: at,
			Keysets: map[string][]byte{"records": {9, 8, 0}, "wat": {7}},
		}
		_, err := db.VaultRow(ctx, r.Account, r.Name)
		wantCode(t, "absent row", err, fault.NotFound)
		must(t, db.CreateVaultRow(ctx, r))
		wantEqual(t, "row", got[vault.Row](t)(db.VaultRow(ctx, r.Account, r.Name)), r)
		again := r
		again.KeyURI = "file:other"
		wantCode(t, "create again", db.CreateVaultRow(ctx, again), fault.Conflict)
		wantEqual(t, "row after a refused create", got[vault.Row](t)(db.VaultRow(ctx, r.Account, r.Name)), r)

		r.Version, r.Wrapped, r.Keysets, r.Modified = 2, []byte{4}, map[string][]byte{"records": {1}}, at.Add(time.Hour)
		wantCode(t, "swap of another version", db.SwapVaultRow(ctx, r, 5), fault.Conflict)
		must(t, db.SwapVaultRow(ctx, r, 1))
		wantEqual(t, "swapped row", got[vault.Row](t)(db.VaultRow(ctx, r.Account, r.Name)), r)
		won := race(t, 20, fault.Conflict, func(i int) error {
			mine := r
			mine.Version = 3
			return db.SwapVaultRow(context.Background(), mine, 2)
		})
		wantEqual(t, "winners of a swap", won, 1)
	})
}

func TestPrincipalsAndKeys(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		p := aPrincipal(account, "p1", "bot")
		must(t, db.CreatePrincipal(ctx, p))
		wantCode(t, "same name", db.CreatePrincipal(ctx, aPrincipal(account, "p2", "bot")), fault.Conflict)
		must(t, db.CreatePrincipal(ctx, aPrincipal(other, "p3", "bot")))
		must(t, db.CreatePrincipal(ctx, identity.Principal{Account: account, ID: "p4", Name: "ant"}))
		wantEqual(t, "principal", got[identity.Principal](t)(db.PrincipalByName(ctx, account, "bot")), p)
		list := got[[]identity.Principal](t)(db.Principals(ctx, account, "", 10))
		wantEqual(t, "principals", list, []identity.Principal{{Account: account, ID: "p4", Name: "ant"}, p})
		wantEqual(t, "page", len(got[[]identity.Principal](t)(db.Principals(ctx, account, "ant", 1))), 1)

		k := aKey(account, "AKIA1", "p1")
		must(t, db.CreateAccessKey(ctx, k))
		k.Owner = "bot" // reads say whose it is
		wantCode(t, "same key id elsewhere", db.CreateAccessKey(ctx, aKey(other, "AKIA1", "p3")), fault.Conflict)
		wantCode(t, "key of nobody", db.CreateAccessKey(ctx, aKey(account, "AKIA2", "p9")), fault.NotFound)
		wantCode(t, "key of another account's principal", db.CreateAccessKey(ctx, aKey(account, "AKIA2", "p3")), fault.NotFound)
		must(t, db.CreateAccessKey(ctx, aKey(account, "AKIA0", "p4")))
		wantEqual(t, "all keys", len(got[[]identity.AccessKey](t)(db.AccessKeys(ctx, account, "", "", 10))), 2)
		wantEqual(t, "keys of p1", got[[]identity.AccessKey](t)(db.AccessKeys(ctx, account, "p1", "", 10)), []identity.AccessKey{k})
		wantEqual(t, "keys after", len(got[[]identity.AccessKey](t)(db.AccessKeys(ctx, account, "", "AKIA0", 10))), 1)

		key, who, err := db.KeyAndPrincipal(ctx, "AKIA1")
		must(t, err)
		wantEqual(t, "key", key, k)
		wantEqual(t, "its principal", who, p)
		for _, id := range []string{"AKIA9", "", "nul\x00", "\xff\xfe"} {
			_, _, err = db.KeyAndPrincipal(ctx, id)
			wantCode(t, "unknown key", err, fault.NotFound)
		}
	})
}

// A key or principal that was disabled must be seen as such by the next read on the same server.
func TestB02_DisabledIsSeenAtOnce(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		must(t, db.CreatePrincipal(ctx, aPrincipal(account, "p1", "bot")))
		must(t, db.CreateAccessKey(ctx, aKey(account, "AKIA1", "p1")))
		_, _, err := db.KeyAndPrincipal(ctx, "AKIA1")
		must(t, err)

		wantCode(t, "another account's principal", db.SetPrincipalDisabled(ctx, other, "bot", true), fault.NotFound)
		must(t, db.SetPrincipalDisabled(ctx, account, "bot", true))
		_, p, err := db.KeyAndPrincipal(ctx, "AKIA1")
		must(t, err)
		wantEqual(t, "principal disabled", p.Disabled, true)

		_, err = db.SetAccessKeyDisabled(ctx, other, "AKIA1", true)
		wantCode(t, "another account's key", err, fault.NotFound)
		k := got[identity.AccessKey](t)(db.SetAccessKeyDisabled(ctx, account, "AKIA1", true))
		wantEqual(t, "key disabled", k.Disabled, true)
		wantEqual(t, "version of the key", k.Version, int64(2))
		read, _, err := db.KeyAndPrincipal(ctx, "AKIA1")
		must(t, err)
		wantEqual(t, "key read", read, k)

		w := aWorkload(account, "w1", "calendar")
		must(t, db.CreateWorkload(ctx, w))
		got[identity.Workload](t)(db.WorkloadByUID(ctx, account, "w1"))
		w.Deleted, w.Version = at, 2
		must(t, db.SwapWorkload(ctx, w, 1))
		wantEqual(t, "deleted workload", got[identity.Workload](t)(db.WorkloadByUID(ctx, account, "w1")).Deleted, at)
		_, err = db.Workload(ctx, account, "calendar")
		wantCode(t, "deleted workload by name", err, fault.NotFound)
	})
}

func TestWorkloads(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		w := aWorkload(account, "w1", "calendar")
		must(t, db.CreateWorkload(ctx, w))
		wantCode(t, "same name", db.CreateWorkload(ctx, aWorkload(account, "w2", "calendar")), fault.Conflict)
		must(t, db.CreateWorkload(ctx, aWorkload(other, "w1", "calendar")))
		wantEqual(t, "by name", got[identity.Workload](t)(db.Workload(ctx, account, "calendar")), w)
		wantEqual(t, "by uid", got[identity.Workload](t)(db.WorkloadByUID(ctx, account, "w1")), w)

		gone := w
		gone.Deleted, gone.Version, gone.Generation = at, 2, 2
		wantCode(t, "swap of another version", db.SwapWorkload(ctx, gone, 7), fault.Conflict)
		must(t, db.SwapWorkload(ctx, gone, 1))
		must(t, db.CreateWorkload(ctx, aWorkload(account, "w3", "calendar")))
		wantEqual(t, "recreated", got[identity.Workload](t)(db.Workload(ctx, account, "calendar")).UID, "w3")
		wantEqual(t, "old one by uid", got[identity.Workload](t)(db.WorkloadByUID(ctx, account, "w1")), gone)
		back := gone
		back.Deleted, back.Version = time.Time{}, 3
		wantCode(t, "restore over a taken name", db.SwapWorkload(ctx, back, 2), fault.Conflict)
		wantEqual(t, "list", len(got[[]identity.Workload](t)(db.Workloads(ctx, account, "", 10))), 1)

		won := race(t, 50, fault.Conflict, func(i int) error {
			mine := aWorkload(account, "race-"+string(rune('A'+i)), "race")
			return db.CreateWorkload(context.Background(), mine)
		})
		wantEqual(t, "winners of a create", won, 1)
	})
}

func TestIssuersAndUsers(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		i := identity.Issuer{
			Account: account, URL: "https://idp.example/", Audiences: []string{"a"}, ClientIDs: []string{"c1", "c2"}, TokenUse: identity.UseAccess,
			Workloads: []string{"cal*"}, Claims: map[string]string{"tid": "1"}, SubjectClaim: "oid", JWKSURI: "https://idp.example/k",
			JWKS: []byte(`{"keys":[]}`), UserInfo: true, PolicyClaims: []string{"groups", `a","b`}, FromConfig: true, Created: at,
		}
		must(t, db.CreateIssuer(ctx, i))
		wantCode(t, "same URL", db.CreateIssuer(ctx, i), fault.Conflict)
		wantEqual(t, "issuer", got[identity.Issuer](t)(db.Issuer(ctx, account, i.URL)), i)
		_, err := db.Issuer(ctx, account, "https://idp.example")
		wantCode(t, "URL without its slash", err, fault.NotFound)
		wantCode(t, "another account's", db.DeleteIssuer(ctx, other, i.URL), fault.NotFound)
		wantEqual(t, "list", got[[]identity.Issuer](t)(db.Issuers(ctx, account, "", 5)), []identity.Issuer{i})
		plain := identity.Issuer{Account: account, URL: "https://plain.example", Audiences: []string{"a"}, TokenUse: identity.UseAny, SubjectClaim: "sub", Created: at}
		must(t, db.CreateIssuer(ctx, plain))
		wantEqual(t, "issuer without lists", got[identity.Issuer](t)(db.Issuer(ctx, account, plain.URL)), plain)
		must(t, db.DeleteIssuer(ctx, account, i.URL))
		_, err = db.Issuer(ctx, account, i.URL)
		wantCode(t, "deleted issuer, read before", err, fault.NotFound)
		wantCode(t, "delete again", db.DeleteIssuer(ctx, account, i.URL), fault.NotFound)

		must(t, db.RememberUser(ctx, account, "ref", vault.Sealed("x"), at))
		must(t, db.RememberUser(ctx, account, "ref", vault.Sealed("y"), at))
		must(t, db.RememberUser(ctx, other, "ref", vault.Sealed("z"), at))
	})
}
