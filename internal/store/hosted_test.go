package store_test

import (
	"fmt"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

func TestLoginClients(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		c := identity.LoginClient{Account: account, Issuer: "https://idp.example", ClientID: "login", Secret: vault.Sealed("sealed"), Scopes: []string{"openid"}, Updated: at,
			Authorization: "https://idp.example/authorize", Token: "https://idp.example/token"}
		_, err := db.Login(ctx, account, c.Issuer)
		wantCode(t, "unknown", err, fault.NotFound)
		must(t, db.SetLogin(ctx, c))
		wantEqual(t, "login client", got[identity.LoginClient](t)(db.Login(ctx, account, c.Issuer)), c)
		c.ClientID, c.Secret, c.Scopes = "other", nil, []string{"openid", "email"}
		must(t, db.SetLogin(ctx, c))
		wantEqual(t, "replaced", got[identity.LoginClient](t)(db.Login(ctx, account, c.Issuer)), c)
		_, err = db.Login(ctx, "999999999999", c.Issuer)
		wantCode(t, "another account's", err, fault.NotFound)
		must(t, db.CreateIssuer(ctx, identity.Issuer{Account: account, URL: c.Issuer, Created: at}))
		must(t, db.DeleteIssuer(ctx, account, c.Issuer))
		_, err = db.Login(ctx, account, c.Issuer)
		wantCode(t, "after its issuer", err, fault.NotFound)

		_, err = db.SealedUser(ctx, account, "ref")
		wantCode(t, "unknown user", err, fault.NotFound)
		must(t, db.RememberUser(ctx, account, "ref", vault.Sealed("user"), at))
		wantEqual(t, "user", got[vault.Sealed](t)(db.SealedUser(ctx, account, "ref")), vault.Sealed("user"))
	})
}

// M01: one account does not have one client at one endpoint twice. Another account may.
func TestM01_LoginClientsAreApart(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		login := func(of access.Account, issuer, client, authorization, token string) error {
			return db.SetLogin(ctx, identity.LoginClient{Account: of, Issuer: issuer, ClientID: client, Authorization: authorization, Token: token, Updated: at})
		}
		must(t, login(account, "https://a", "c", "https://a/authorize", "https://a/token"))
		must(t, login(account, "https://a", "c", "https://a/authorize", "https://a/token"))
		wantCode(t, "the same authorization endpoint", login(account, "https://b", "c", "https://a/authorize", "https://b/token"), fault.Conflict)
		wantCode(t, "the same token endpoint", login(account, "https://b", "c", "https://b/authorize", "https://a/token"), fault.Conflict)
		must(t, login(account, "https://b", "d", "https://a/authorize", "https://a/token"))
		wantCode(t, "at a change", login(account, "https://b", "c", "https://a/authorize", "https://a/token"), fault.Conflict)
		must(t, login("999999999999", "https://b", "c", "https://a/authorize", "https://a/token"))
	})
}

// M08: the first origin stays until it is set, per account, and goes with the issuer.
func TestM08_PinsStay(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		const other access.Account = "999999999999"
		pin := func(of access.Account, endpoint, origin string) string {
			return got[string](t)(db.PinIssuer(ctx, of, "https://idp", endpoint, origin))
		}
		wantEqual(t, "first", pin(account, keyring.KeysPin, "https://a"), "https://a")
		wantEqual(t, "second", pin(account, keyring.KeysPin, "https://b"), "https://a")
		wantEqual(t, "no origin", pin(account, keyring.KeysPin, ""), "https://a")
		wantEqual(t, "another account", pin(other, keyring.KeysPin, "https://b"), "https://b")
		wantEqual(t, "another endpoint", pin(account, keyring.WorkloadKeysPin, "https://c"), "https://c")
		must(t, db.RepinIssuer(ctx, account, "https://idp", map[string]string{keyring.KeysPin: "https://d", keyring.UserInfoPin: "https://e"}))
		want := map[string]string{keyring.KeysPin: "https://d", keyring.WorkloadKeysPin: "https://c", keyring.UserInfoPin: "https://e"}
		wantEqual(t, "pins", got[map[string]string](t)(db.IssuerPins(ctx, account, "https://idp")), want)
		_, err := db.PinIssuer(ctx, account, "https://idp", "none", "")
		wantCode(t, "nothing to pin", err, fault.NotFound)

		must(t, db.CreateIssuer(ctx, identity.Issuer{Account: account, URL: "https://idp", Created: at}))
		must(t, db.DeleteIssuer(ctx, account, "https://idp"))
		wantEqual(t, "after the issuer", got[map[string]string](t)(db.IssuerPins(ctx, account, "https://idp")), map[string]string{keyring.WorkloadKeysPin: "https://c"})
		wantEqual(t, "the other account's", pin(other, keyring.KeysPin, "https://x"), "https://b")
		must(t, db.CreateWorkloadIssuer(ctx, federation.Issuer{Account: account, URL: "https://idp", UID: "w", Kind: federation.OIDC, Created: at}))
		must(t, db.DeleteWorkloadIssuer(ctx, account, "https://idp"))
		wantEqual(t, "after the workload issuer", got[map[string]string](t)(db.IssuerPins(ctx, account, "https://idp")), map[string]string{})
	})
}

func aLogin(state, flow string) broker.Login {
	return broker.Login{State: state, Flow: flow, Cookie: "cookie-" + state, Verifier: vault.Sealed("v"), IssSent: true, Created: at}
}

func TestHostedLogins(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		withProvider(t, db)
		must(t, db.CreateFlow(ctx, aFlow(account, "f1", "prov1"), 50))
		must(t, db.CreateFlow(ctx, aFlow(account, "f2", "prov1"), 50))
		must(t, db.AddLogin(ctx, aLogin("s1", "f1"), 2))
		wantCode(t, "same state", db.AddLogin(ctx, aLogin("s1", "f1"), 2), fault.Conflict)
		wantCode(t, "of nothing", db.AddLogin(ctx, aLogin("s9", "f9"), 2), fault.Conflict)
		added := 20 - race(t, 20, fault.Limit, func(i int) error { return db.AddLogin(ctx, aLogin(fmt.Sprintf("r%d", i), "f1"), 2) })
		wantEqual(t, "sign-ins too many", added, 19)

		_, err := db.SpendLogin(ctx, "s1", "x")
		wantCode(t, "another browser", err, fault.Denied)
		_, err = db.SpendLogin(ctx, "s9", "x")
		wantCode(t, "unknown state", err, fault.NotFound)
		wantCode(t, "a session before the sign-in", db.OpenHosted(ctx, "s1", "h1"), fault.Conflict)
		l := aLogin("s1", "f1")
		l.Spent = true
		wantEqual(t, "spent", got[broker.Login](t)(db.SpendLogin(ctx, "s1", "cookie-s1")), l)
		_, err = db.SpendLogin(ctx, "s1", "cookie-s1")
		wantCode(t, "twice", err, fault.Conflict)

		_, err = db.HostedSession(ctx, "f1", "")
		wantCode(t, "the empty session", err, fault.NotFound)
		wantCode(t, "binding the empty session", db.BindHosted(ctx, "f1", "", "h9"), fault.Conflict)
		must(t, db.OpenHosted(ctx, "s1", "h1"))
		wantCode(t, "a second session", db.OpenHosted(ctx, "s1", "h2"), fault.Conflict)
		l.Session, l.Verifier = "h1", nil
		wantEqual(t, "session", got[broker.Login](t)(db.HostedSession(ctx, "f1", "h1")), l)
		_, err = db.HostedSession(ctx, "f2", "h1")
		wantCode(t, "another flow's", err, fault.NotFound)
		wantCode(t, "binding another flow's", db.BindHosted(ctx, "f2", "h1", "h2"), fault.Conflict)
		must(t, db.BindHosted(ctx, "f1", "h1", "h2"))
		wantCode(t, "binding the old one", db.BindHosted(ctx, "f1", "h1", "h3"), fault.Conflict)
		l.Session, l.Allowed = "h2", true
		wantEqual(t, "bound", got[broker.Login](t)(db.HostedSession(ctx, "f1", "h2")), l)

		must(t, db.HoldCode(ctx, "f1", vault.Sealed("c"), vault.Sealed("v")))
		must(t, db.AddLogin(ctx, aLogin("s4", "f1"), 9))
		failed, err := db.FailFlow(ctx, "f1", "declined", 0)
		wantEqual(t, "failed", failed, true)
		must(t, err)
		wantCode(t, "after the end", db.AddLogin(ctx, aLogin("s5", "f1"), 9), fault.Conflict)
		_, err = db.SweepFlows(ctx, at.AddDate(1, 0, 0), 10)
		must(t, err)
		_, err = db.HostedSession(ctx, "f1", "h2")
		wantCode(t, "after the flow", err, fault.NotFound)
	})
}
