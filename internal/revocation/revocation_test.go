package revocation_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/revocation"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
	"github.com/tabard-id/tabard/internal/vault"
)

// database is what each test gets a copy of.
var database storetest.Template

const account access.Account = "000000000000"

// world is a Service on a real store, vault and identity, with connections that are ended by a fake broker.
type world struct {
	t      *testing.T
	db     *store.DB
	people *identity.Service
	guard  *access.Guard
	ends   *ends
	signer signer
	root   access.Caller
	users  map[string]string // name → reference
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db := ok(store.Open(t.Context(), store.Config{SQLitePath: database.New(t)}))(t)
	t.Cleanup(func() { must(t, db.Close()) })
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, kms.CreateFile(keyFile))
	v := ok(vault.New(vault.Config{Store: db, Wrapper: ok(kms.OpenFile(keyFile))(t), Region: "us-east-1", Now: time.Now}))(t)
	t.Cleanup(v.Close)
	guard := access.NewGuard(access.Config{Log: db, Now: time.Now, Decider: access.Table{}})
	t.Cleanup(guard.Close)
	w := &world{
		t: t, db: db, guard: guard, ends: &ends{db: db, upstream: map[string]broker.RevocationState{}}, users: map[string]string{},
		root: access.Caller{Account: account, Principal: "prn-root", Name: "root", AccessKey: "K", Roles: []access.Role{access.Root}},
	}
	w.people = ok(identity.New(identity.Config{Store: db, Vault: v, Guard: guard, Keys: noKeys{}, Issuer: "https://tabard.example.com", Now: time.Now}))(t)
	for _, p := range []string{"google", "github"} {
		must(t, db.CreateProvider(t.Context(), broker.Provider{
			Account: account, Name: p, UID: "p-" + p, CallbackID: "cb-" + p, Vendor: "CustomOauth2", ClientID: "c", AuthMethod: broker.AuthPost, Version: 1, Created: time.Now(), Updated: time.Now(),
		}))
	}
	for _, a := range []string{"agent-a", "agent-b"} {
		agent := ok(w.people.CreateWorkload(t.Context(), w.root, identity.NewWorkload{Name: a, Tags: map[string]string{identity.TagAssurance: identity.Asserted}}))(t)
		for _, u := range []string{"alice", "bob"} {
			user := ok(identity.AssertedUser(u))(t)
			w.users[u] = ok(w.people.UserRef(t.Context(), account, user))(t)
			must(t, w.people.RememberUser(t.Context(), account, user))
			for _, p := range []string{"google", "github"} {
				id := strings.Join([]string{"cn", a, u, p}, "-")
				must(t, db.SwapConnection(t.Context(), broker.Connection{
					Account: account, ID: id, Key: id, Workload: agent.UID, User: w.users[u], Provider: "p-" + p, Flow: broker.FlowUserFederation,
					Access: vault.Sealed("a"), Refresh: vault.Sealed("r"), Upstream: vault.Sealed("u"), State: broker.Active, Generation: 1, Created: time.Now(), Updated: time.Now(),
				}, 0))
			}
		}
	}
	return w
}

func (w *world) service(change ...func(*revocation.Config)) *revocation.Service {
	w.t.Helper()
	c := revocation.Config{Store: w.db, Identity: w.people, Connections: w.ends, Guard: w.guard, Signer: &w.signer, Now: time.Now}
	for _, f := range change {
		f(&c)
	}
	return ok(revocation.New(c))(w.t)
}

// token mints a workload access token for an asserted user.
func (w *world) token(agent, user string) secret.Text {
	w.t.Helper()
	return ok(w.people.MintTokenForUserID(w.t.Context(), w.root, agent, user))(w.t).Token
}

func (w *world) alive(token secret.Text) bool {
	_, err := w.people.Open(w.t.Context(), w.root, access.DescribeUser, token, access.Facts{}, true)
	if err != nil && !errors.Is(err, fault.Unauthenticated) {
		w.t.Error(err)
	}
	return err == nil
}

// active are the connections that have not ended, without their prefix.
func (w *world) active() (ids []string) {
	w.t.Helper()
	for _, v := range ok(w.db.ConnectionViews(w.t.Context(), account, broker.ConnectionFilter{State: broker.Active}, "", 100))(w.t) {
		ids = append(ids, strings.TrimPrefix(v.ID, "cn-"))
	}
	return ids
}

func (w *world) claims(receipt string) map[string]any {
	w.t.Helper()
	var c map[string]any
	must(w.t, json.Unmarshal([]byte(receipt), &c))
	return c
}

// ends ends connections in the real store, as the broker does, and lets upstream say what the provider answers.
type ends struct {
	db *store.DB

	mu       sync.Mutex // guards what follows
	upstream map[string]broker.RevocationState
	ended    []string
}

func (e *ends) EndConnection(ctx context.Context, caller access.Caller, id string, upstream bool, _ string) (broker.Ended, error) {
	c, err := e.db.ConnectionByID(ctx, caller.Account, id)
	if err != nil {
		return broker.Ended{}, err
	}
	out := broker.Ended{Generation: c.Generation, Upstream: broker.RevocationSkipped}
	if upstream {
		out.Upstream = broker.RevocationPending
	}
	if c.State == broker.Revoked {
		out.Generation--
		return out, nil
	}
	var r broker.Revocation
	if upstream {
		r = broker.Revocation{
			Account: c.Account, ID: "rv-" + id, Connection: id, Column: "refresh", Key: c.Key, Workload: c.Workload, User: c.User, Provider: c.Provider,
			Generation: c.Generation, Token: c.Refresh, State: broker.RevocationPending, Due: time.Now(), Created: time.Now(), Updated: time.Now(),
		}
	}
	next := c
	next.Access, next.Refresh, next.State, next.Generation = nil, nil, broker.Revoked, c.Generation+1
	if err := e.db.RevokeConnection(ctx, next, c.Generation, r, 0, broker.Leaving{LastOfLineage: true}); err != nil {
		return broker.Ended{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = append(e.ended, id)
	return out, nil
}

func (e *ends) SweepRevocations(ctx context.Context) (int, error) {
	for n := 0; ; n++ {
		r, err := e.db.LeaseRevocation(ctx, time.Now(), time.Minute)
		if errors.Is(err, fault.NotFound) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		e.mu.Lock()
		r.State, r.Detail = broker.RevocationDone, ""
		if s, ok := e.upstream[r.Connection]; ok {
			r.State, r.Detail = s, "the provider said "+string(s)
		}
		e.mu.Unlock()
		if r.State == broker.RevocationPending {
			r.Due = time.Now().Add(time.Hour)
		}
		if err := e.db.FinishRevocation(ctx, r); err != nil {
			return n, err
		}
	}
}

func (e *ends) HasProvider(_ context.Context, _ access.Account, name string) (bool, error) {
	return name == "google" || name == "github", nil
}

// signer "signs" by writing the claims down.
type signer struct{ n int }

func (s *signer) State(_ context.Context, typ string, claims map[string]any) (string, error) {
	if typ != revocation.ReceiptType {
		return "", errors.New("another type")
	}
	s.n++
	doc, err := json.Marshal(claims)
	return string(doc), err
}

type noKeys struct{}

func (noKeys) JWKS(context.Context, access.Account, string, string) ([]byte, error) {
	return nil, fault.New(fault.Unavailable, "no issuer")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func wantCode(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want code %s", what, err, code)
	}
}

func TestRevokeAccess_Selections(t *testing.T) {
	for name, c := range map[string]struct {
		request revocation.Request
		left    int
		dead    string // of the tokens of agent-a for alice, agent-a for bob, agent-b for alice: x is dead
	}{
		"agent":              {revocation.Request{Workload: "agent-a"}, 4, "xx-"},
		"user":               {revocation.Request{User: &identity.UserSelector{ID: "alice"}}, 4, "x-x"},
		"provider":           {revocation.Request{Provider: "google"}, 4, "---"},
		"agent and user":     {revocation.Request{Workload: "agent-a", User: &identity.UserSelector{ID: "alice"}}, 6, "x-x"},
		"agent and provider": {revocation.Request{Workload: "agent-a", Provider: "google"}, 6, "---"},
		"all three":          {revocation.Request{Workload: "agent-a", Provider: "google", User: &identity.UserSelector{ID: "alice"}}, 7, "---"},
		"account":            {revocation.Request{Whole: true}, 0, "xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.service()
			tokens := []secret.Text{w.token("agent-a", "alice"), w.token("agent-a", "bob"), w.token("agent-b", "alice")}
			c.request.Reason = "leaked"
			r := ok(s.RevokeAccess(t.Context(), w.root, c.request))(t)
			dead := ""
			for _, token := range tokens {
				if w.alive(token) {
					dead += "-"
				} else {
					dead += "x"
				}
			}
			left := w.active()
			if len(left) != c.left || r.Connections != 8-c.left || dead != c.dead {
				t.Errorf("got %d ended, left %v, tokens %s; want %d left and %s", r.Connections, left, dead, c.left, c.dead)
			}
			if r.Phase != revocation.Done || r.Counts.Upstream[broker.RevocationSkipped] != 8-c.left {
				t.Errorf("got phase %s and %v, want it done, with no provider asked", r.Phase, r.Counts.Upstream)
			}
			claims := w.claims(r.Receipt)
			if claims["final"] != true || claims["reason"] != "leaked" || claims["connections_ended"] != float64(8-c.left) || claims["requested_by"].(map[string]any)["name"] != "root" {
				t.Errorf("receipt: %v", claims)
			}
		})
	}
}

func TestRevokeAccess_WhoMayAndWhat(t *testing.T) {
	w := newWorld(t)
	s, ctx := w.service(), t.Context()
	admin := access.Caller{Account: account, Principal: "prn-a", Name: "admin", Roles: []access.Role{access.Admin}}
	agent := access.Caller{Account: account, Principal: "prn-b", Name: "agent", Roles: []access.Role{access.Agent, access.ConsentApp, access.Auditor}, Workloads: []string{"*"}}
	for name, c := range map[string]struct {
		caller access.Caller
		r      revocation.Request
		code   fault.Code
	}{
		"by an agent":              {agent, revocation.Request{Workload: "agent-a"}, fault.Denied},
		"by an agent, nothing":     {agent, revocation.Request{}, fault.Denied},
		"the account, by an admin": {admin, revocation.Request{Whole: true}, fault.Denied},
		"nothing":                  {admin, revocation.Request{}, fault.Invalid},
		"everything and an agent":  {w.root, revocation.Request{Whole: true, Workload: "agent-a"}, fault.Invalid},
		"an agent that is not":     {admin, revocation.Request{Workload: "agent-x"}, fault.NotFound},
		"a provider that is not":   {admin, revocation.Request{Provider: "gogle"}, fault.NotFound},
		"a user named in two ways": {admin, revocation.Request{User: &identity.UserSelector{ID: "a", Ref: "b"}}, fault.Invalid},
		"a user named in no way":   {admin, revocation.Request{User: &identity.UserSelector{}}, fault.Invalid},
		"another account's": {access.Caller{Account: "111111111111", Principal: "p", Name: "root", Roles: []access.Role{access.Root}},
			revocation.Request{Workload: "agent-a"}, fault.NotFound},
	} {
		_, err := s.RevokeAccess(ctx, c.caller, c.r)
		wantCode(t, name, err, c.code)
	}
	_, err := s.EraseUser(ctx, agent, identity.UserSelector{ID: "alice"}, "")
	wantCode(t, "erasing by an agent", err, fault.Denied)
	if n := len(w.active()); n != 8 {
		t.Errorf("%d connections are left, want all 8", n)
	}
	r := ok(s.RevokeAccess(ctx, admin, revocation.Request{Provider: "google"}))(t)
	_, _, _, err = s.Revocation(ctx, agent, r.ID, "", 10)
	must(t, err) // as an auditor
	agent.Roles = agent.Roles[:1]
	_, _, _, err = s.Revocation(ctx, agent, r.ID, "", 10)
	wantCode(t, "reading by an agent", err, fault.Denied)
	foreign := access.Caller{Account: "111111111111", Principal: "p", Roles: []access.Role{access.Root}}
	_, _, _, err = s.Revocation(ctx, foreign, r.ID, "", 10)
	wantCode(t, "reading by another account", err, fault.NotFound)
}

// What providers answer is in the items, the counts and the receipt; what they did not confirm is named first.
func TestRevocation_Upstream(t *testing.T) {
	w := newWorld(t)
	s, ctx := w.service(), t.Context()
	w.ends.upstream["cn-agent-a-alice-github"] = broker.RevocationUnsupported
	w.ends.upstream["cn-agent-b-bob-google"] = broker.RevocationFailed
	w.ends.upstream["cn-agent-b-bob-github"] = broker.RevocationPending
	r := ok(s.RevokeAccess(ctx, w.root, revocation.Request{Whole: true, Upstream: true}))(t)
	if r.Phase != revocation.Killed || len(w.active()) != 0 || r.Counts.Upstream[broker.RevocationPending] != 8 {
		t.Fatalf("got %+v", r)
	}
	if claims := w.claims(r.Receipt); claims["final"] != false {
		t.Errorf("a receipt of before the providers answered is final: %v", claims)
	}
	must(t, s.Drain(ctx))
	r, items, next, err := s.Revocation(ctx, w.root, r.ID, "", 100)
	must(t, err)
	if r.Phase != revocation.Killed || next != "" || len(items) != 8 || r.Counts.Upstream[broker.RevocationDone] != 5 || r.Counts.Upstream[broker.RevocationPending] != 1 {
		t.Fatalf("while one is tried again: %+v", r)
	}
	w.ends.upstream["cn-agent-b-bob-github"] = broker.RevocationDone
	last := ok(w.db.RevocationOf(ctx, account, "cn-agent-b-bob-github"))(t)
	last.State, last.Detail = broker.RevocationDone, ""
	must(t, w.db.FinishRevocation(ctx, last))
	later := w.service(func(c *revocation.Config) { c.Now = func() time.Time { return time.Now().Add(time.Minute) } })
	must(t, later.Drain(ctx))
	r, items, next, err = s.Revocation(ctx, w.root, r.ID, "", 3)
	must(t, err)
	if r.Phase != revocation.Done || len(items) != 3 || next != items[2].Connection {
		t.Fatalf("at the end: %+v, %d items", r, len(items))
	}
	checkReceipt(t, w, s, r)
}

func checkReceipt(t *testing.T, w *world, s *revocation.Service, r revocation.Report) {
	t.Helper()
	claims := w.claims(r.Receipt)
	named := claims["connections"].([]any)
	if claims["final"] != true || len(named) != 8 || claims["connections_not_named"] != float64(0) {
		t.Fatalf("receipt: %v", claims)
	}
	for i, want := range []string{"unsupported", "failed", "revoked"} {
		if got := named[i].(map[string]any)["upstream"]; got != want {
			t.Errorf("connection %d of the receipt is %v, want %s: %v", i, got, want, named[i])
		}
	}
	if got := fmt.Sprint(claims["upstream"]); got != "map[failed:1 revoked:6 unsupported:1]" {
		t.Errorf("counts: %s", got)
	}
	// The digest is of what GetRevocation lists, so that a receipt that names only some vouches for all.
	digest := sha256.New()
	_, items, _, err := s.Revocation(t.Context(), w.root, r.ID, "", 100)
	must(t, err)
	for _, i := range items {
		line := fmt.Sprintf(`{"connection":%q,"workload":%q,"user_ref":%q,"provider":%q,"upstream":%q`, i.Connection, i.Workload, i.User, i.Provider, i.Upstream)
		if i.Detail != "" {
			line += fmt.Sprintf(`,"detail":%q`, i.Detail)
		}
		digest.Write([]byte(line + "}\n"))
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != claims["connections_sha256"] {
		t.Errorf("digest %v, want %s", claims["connections_sha256"], got)
	}
	before := w.signer.n
	_, _, _, err = s.Revocation(t.Context(), w.root, r.ID, "", 100)
	must(t, err)
	if w.signer.n != before {
		t.Error("the last receipt was signed again instead of kept")
	}
}
