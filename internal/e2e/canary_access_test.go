package e2e_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/sidecar"
)

// accessKinds are the kinds of secret that identities of workloads, exchanges and accounts bring.
func accessKinds() []string {
	return []string{"workload JWT", "session secret", "session token", "exchanged token"}
}

// keepBut keeps an answer in which these values, and nothing else, may be secret. It learns them by kind.
func (h *hunt) keepBut(where string, r reply, may map[string]string) reply {
	h.t.Helper()
	if r.status != http.StatusOK {
		h.t.Fatalf("%s answered %d %s", where, r.status, r.body)
	}
	for value, kind := range may {
		if value == "" {
			h.t.Fatalf("%s has no %s: %s", where, kind, r.body)
		}
		r.body = strings.ReplaceAll(r.body, value, "")
		switch kind {
		case "exchanged token":
			value = signatureOf(value)
		case "WAT":
			value = value[len(value)/2:]
		}
		h.know(h.t, kind, value)
	}
	h.keep(where, r)
	return r
}

// platformToken is a token of a service account. Its signature is a canary.
func (h *hunt) platformToken(p *platform, account string, change map[string]any) string {
	token := p.token(account, change)
	h.know(h.t, "workload JWT", signatureOf(token))
	return token
}

// workloads are the ways in of a workload that has no access key: session credentials by STS and by the container
// endpoint, and its own token.
func (h *hunt) workloads() *platform {
	p := newPlatform(h.t)
	h.tell(root(), "CreatePrincipal", map[string]any{"name": "calendar", "roles": []string{"agent"}, "workloads": []string{"calendar-agent"}})
	h.allow("calendar")
	h.tell(root(), "CreateWorkloadIssuer", map[string]any{"issuer": p.url, "audiences": []string{"tabard"}})
	h.federate(p, "first")
	token := h.platformToken(p, "first", nil)
	form := map[string][]string{"WebIdentityToken": {token}}

	assumed := h.assume(p, form)
	member := func(name string) string {
		m := regexp.MustCompile(`<` + name + `>([^<]+)<`).FindStringSubmatch(assumed.body)
		if m == nil {
			h.t.Fatalf("no %s: %d %s", name, assumed.status, assumed.body)
		}
		return m[1]
	}
	session := aws.Credentials{AccessKeyID: member("AccessKeyId"), SecretAccessKey: member("SecretAccessKey"), SessionToken: member("SessionToken")}
	h.keepBut("AssumeRoleWithWebIdentity", assumed, map[string]string{session.SecretAccessKey: "session secret", session.SessionToken: "session token"})
	inPod := h.container(http.MethodGet, daemon.DefaultAccount+"/calendar", map[string]string{"Authorization": token})
	h.keepBut("the container credentials", inPod, map[string]string{inPod.get("SecretAccessKey"): "session secret", inPod.get("Token"): "session token"})

	h.sessionCalls(session)
	h.workloadRefusals(p, form, token)
	return p
}

// sessionCalls signs with session credentials, that are good and that are not.
func (h *hunt) sessionCalls(session aws.Credentials) {
	const mint = `{"workloadName":"calendar-agent"}`
	call := func(c aws.Credentials) reply {
		r := h.request(h.agent, http.MethodPost, "/identities/GetWorkloadAccessToken", mint)
		r.Header.Del("Authorization")
		sum := sha256.Sum256([]byte(mint))
		at := time.Now().Add(time.Duration(h.ahead.Load()))
		if err := v4.NewSigner().SignHTTP(h.t.Context(), c, r, hex.EncodeToString(sum[:]), "bedrock-agentcore", daemon.DefaultRegion, at); err != nil {
			h.t.Fatal(err)
		}
		return do(h.t, r)
	}
	good := call(session)
	h.keepBut("a mint with a session", good, map[string]string{good.get("workloadAccessToken"): "WAT"})
	for what, c := range map[string]aws.Credentials{
		"a session without its token":   {AccessKeyID: session.AccessKeyID, SecretAccessKey: session.SecretAccessKey},
		"a session with another secret": {AccessKeyID: session.AccessKeyID, SecretAccessKey: "x", SessionToken: session.SessionToken},
		"a session with a broken token": {AccessKeyID: session.AccessKeyID, SecretAccessKey: session.SecretAccessKey, SessionToken: session.SessionToken[:len(session.SessionToken)-8]},
		"a session mixed up":            {AccessKeyID: session.SecretAccessKey, SecretAccessKey: session.AccessKeyID, SessionToken: session.SessionToken},
		"a token in place of the id":    {AccessKeyID: session.SessionToken, SecretAccessKey: session.SecretAccessKey, SessionToken: session.AccessKeyID},
	} {
		if r := call(c); r.status/100 != 4 {
			h.t.Errorf("%s: %d %s", what, r.status, r.body)
		} else {
			h.keep(what, r)
		}
	}
}

// workloadRefusals sends workloads' tokens where they end in a refusal, and as bearer tokens.
func (h *hunt) workloadRefusals(p *platform, form map[string][]string, token string) {
	odd := map[string]string{
		"no rule": h.platformToken(p, "third", nil), "expired": h.platformToken(p, "first", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
		"another audience": h.platformToken(p, "first", map[string]any{"aud": "x"}), "a broken signature": token[:len(token)-8] + "AAAAAAAA",
		"no JWT": signatureOf(token), "twice": token + "." + token,
	}
	for what, bad := range odd {
		h.keep("AssumeRoleWithWebIdentity, "+what, h.assume(p, map[string][]string{"WebIdentityToken": {bad}}))
		h.keep("the container credentials, "+what, h.container(http.MethodGet, daemon.DefaultAccount+"/calendar", map[string]string{"Authorization": bad}))
		h.keep("bearer, "+what, h.bearer(bad, "/identities/GetWorkloadAccessToken", `{"workloadName":"calendar-agent"}`))
	}
	for _, name := range []string{"RoleArn", "RoleSessionName", "DurationSeconds", "Version", "Policy"} { // members swapped
		swapped := maps.Clone(form)
		swapped[name] = []string{token}
		h.keep("AssumeRoleWithWebIdentity with a token as "+name, h.assume(p, swapped))
	}
	h.keep("a token in the path", h.container(http.MethodGet, token, map[string]string{"Authorization": token}))
	good := h.bearer(token, "/identities/GetWorkloadAccessToken", `{"workloadName":"calendar-agent"}`)
	h.keepBut("a mint with a bearer token", good, map[string]string{good.get("workloadAccessToken"): "WAT"})
	for op, body := range map[string]string{"/tabard/ListPrincipals": `{}`, "/identities/GetWorkloadAccessToken": `{"workloadName":"` + token + `"}`} {
		h.keep("bearer "+op, h.bearer(token, op, body))
	}
}

// bearer posts a body with a workload's token.
func (h *hunt) bearer(token, path, body string) reply {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.server.URL()+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	return do(h.t, r)
}

// exchanges hands a user's token on to another agent, and that on to a service, with all that goes wrong.
func (h *hunt) exchanges(jwt string) {
	h.workload("booker")
	booker := h.principal("booker", "booker", "agent")
	h.know(h.t, "access key", booker.Secret)
	wat := h.mint(jwt)
	handed := h.form(booker, "/oauth2/token", exchanging(wat, "booker", "requested_token_type", workloadTokenType))
	own := handed.get("access_token")
	h.keepBut("an exchange for another agent", handed, map[string]string{own: "WAT"})
	answer := h.form(booker, "/oauth2/token", exchanging(own, reports, "scope", "read"))
	token := answer.get("access_token")
	h.keepBut("an exchange for a service", answer, map[string]string{token: "exchanged token"})

	for what, f := range map[string]url.Values{
		"another audience": exchanging(own, token), "a foreign subject": exchanging(token, reports), "a user's own": exchanging(jwt, reports), "no type": exchanging(own, reports, "subject_token_type", own),
		"a scope": exchanging(own, reports, "scope", own+"\x01"), "a broken one": exchanging(own[:len(own)-4]+"AAAA", reports), "an actor": exchanging(own, reports, "actor_token", own),
		"no grant": exchanging(own, reports, "grant_type", own), "a resource": exchanging(own, reports, "resource", "https://user:"+token+"@x"), "itself": exchanging(own, h.server.PublicURL()),
	} {
		h.keep("an exchange with "+what, h.form(booker, "/oauth2/token", f))
	}
	wrong := rand.Text()
	h.know(h.t, "access key", wrong)
	for what, k := range map[string]key{"another secret": {booker.ID, wrong}, "the secret as user": {booker.Secret, booker.ID}, "a token as user": {token, own}, "no user": {"", booker.Secret}} {
		h.keep("an exchange with "+what, h.form(k, "/oauth2/token", exchanging(own, reports)))
	}
	for _, text := range []string{token, own, jwt, token[:len(token)-4] + "AAAA", signatureOf(token)} {
		for _, path := range []string{"/oauth2/introspect", "/oauth2/revoke"} {
			h.keep(path, h.form(booker, path, url.Values{"token": {text}}))
			h.keep(path+" with a token as hint", h.form(booker, path, url.Values{"token": {text}, "token_type_hint": {text}}))
			h.keep(path+" in the query", h.form(booker, path+"?token="+text, url.Values{}))
		}
	}
}

// delegations mints without the user, and ends what was delegated.
func (h *hunt) delegations(jwt string) {
	grant := []map[string]any{{"providerName": "maps"}}
	in := map[string]any{
		"workloadName": "calendar-agent", "userToken": jwt, "grants": grant, "note": "books while I sleep",
		"until": time.Now().Add(time.Duration(h.ahead.Load()) + 30*24*time.Hour).Unix(),
	}
	made := h.tell(h.app, "CreateDelegation", in)
	_, rest, _ := strings.Cut(made.body, `"delegationId":"`)
	id, _, _ := strings.Cut(rest, `"`)
	ask := map[string]any{"workloadName": "calendar-agent", "delegationId": id}
	wat := h.tell(h.agent, "GetWorkloadAccessTokenForDelegation", ask).get("workloadAccessToken")
	h.tell(h.agent, "GetResourceApiKey", map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "maps"})
	h.fails(h.agent, "GetResourceOauth2Token", h.ask(wat), http.StatusForbidden)
	h.fails(h.app, "CreateDelegation", with(in, "workloadName", jwt), http.StatusBadRequest)
	h.fails(h.app, "CreateDelegation", with(in, "userToken", jwt[:len(jwt)-8]+"AAAAAAAA"), http.StatusUnauthorized)
	h.fails(h.app, "CreateDelegation", with(in, "userToken", wat), http.StatusUnauthorized, http.StatusBadRequest)
	h.fails(h.agent, "GetWorkloadAccessTokenForDelegation", with(ask, "delegationId", wat), http.StatusBadRequest, http.StatusNotFound)
	h.tell(h.app, "ListDelegations", map[string]any{"workloadName": "calendar-agent", "userToken": jwt})
	h.tell(h.app, "EndDelegation", map[string]any{"delegationId": id, "userToken": jwt})
	h.fails(h.agent, "GetResourceApiKey", map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "maps"}, http.StatusUnauthorized)
}

// revocations ends what bob has, at the provider too, and forgets him.
func (h *hunt) revocations() {
	jwt := h.login(h.bob)
	_, session, address := h.begin(h.mint(jwt))
	h.walk(peer.NewBrowser(h.bob), address)
	if r := h.complete(h.app, session, jwt); r.status != http.StatusOK {
		h.t.Fatalf("Complete of bob's: %d %s", r.status, r.body)
	}
	user := map[string]any{"issuer": h.idp.Issuer, "subject": h.bob}
	h.tell(root(), "DisableUser", map[string]any{"user": user, "reason": "lost laptop"})
	h.fails(h.agent, "GetWorkloadAccessTokenForJWT", map[string]any{"workloadName": "calendar-agent", "userToken": jwt}, http.StatusUnauthorized, http.StatusForbidden)
	h.tell(root(), "EnableUser", map[string]any{"user": user})
	began := h.tell(root(), "RevokeAccess", map[string]any{"user": user, "upstream": true, "reason": "lost laptop"})
	id := regexp.MustCompile(`"revocationId":"([^"]+)"`).FindStringSubmatch(began.body)
	if id == nil {
		h.t.Fatalf("RevokeAccess: %s", began.body)
	}
	var last reply
	if !eventually(20*time.Second, func() bool {
		last = h.tell(root(), "GetRevocation", map[string]any{"revocationId": id[1]})
		return strings.Contains(last.body, `"state":"DONE"`)
	}) || strings.Count(last.get("receipt"), ".") != 2 {
		h.t.Errorf("the revocation: %s", last.body)
	}
	h.tell(root(), "EraseUser", map[string]any{"user": user, "reason": "asked for it"})
}

// tenants makes an account, and rotates the key of its root, which then rotates no more.
func (h *hunt) tenants() {
	boss := keyIn(h.t, h.tell(root(), "CreateAccount", map[string]any{"accountId": tenant, "name": "acme"}), "rootAccessKey")
	fresh := keyIn(h.t, h.tell(boss, "RotateRootKey", map[string]any{}), "accessKey")
	h.fails(boss, "RotateRootKey", map[string]any{}, http.StatusForbidden)
	h.fails(root(), "CreateAccount", map[string]any{"accountId": tenant, "name": "acme"}, http.StatusConflict)
	h.fails(root(), "CreateAccount", map[string]any{"accountId": fresh.Secret, "name": "acme"}, http.StatusBadRequest)
	h.tell(fresh, "ListPrincipals", map[string]any{})
	h.tell(root(), "DisableAccount", map[string]any{"accountId": tenant, "reason": "unpaid"})
	h.fails(fresh, "ListPrincipals", map[string]any{}, http.StatusForbidden)
}

// statements are what is signed over the trail, and what others are asked of it.
func (h *hunt) statements(p *platform) {
	made := h.tell(root(), "CreateAuditCheckpoint", map[string]any{})
	h.keep("the keys of statements", page(h.t, http.MethodGet, h.server.URL()+"/tabard/audit-keys.json"))
	h.keep("the keys of tokens", page(h.t, http.MethodGet, h.server.URL()+"/accounts/"+daemon.DefaultAccount+"/oauth2/jwks"))
	h.keep("the installation's keys", page(h.t, http.MethodGet, h.server.URL()+"/oauth2/jwks"))
	token := regexp.MustCompile(`"token":"([^"]+)"`).FindStringSubmatch(made.body)
	if token == nil {
		h.t.Fatalf("CreateAuditCheckpoint: %s", made.body)
	}
	h.tell(root(), "VerifyAudit", map[string]any{"checkpoint": token[1]})
	h.fails(root(), "VerifyAudit", map[string]any{"checkpoint": h.platformToken(p, "first", nil)}, http.StatusBadRequest)
	for op, in := range map[string]map[string]any{
		"ListAuditCheckpoints": {}, "ListFederationRules": {}, "ListWorkloadIssuers": {}, "ListSigningKeys": {}, "ListAccounts": {},
		"GetCeilings": {"workloadName": "calendar-agent"}, "ListDelegations": {"workloadName": "calendar-agent"}, "ListConnections": {},
		"ListStandings": {"kind": "USER"}, "FindWhoCan": {"operation": "GetResourceOauth2Token", "workloadName": "calendar-agent", "providerName": "calendar"},
	} {
		h.tell(root(), op, in)
	}
	h.tell(root(), "RotateSigningKey", map[string]any{"purpose": "TOKENS"})
}

// besides puts a sidecar before an agent, and has a user's request go through it.
func (h *hunt) besides(p *platform, jwt string) {
	p.project(h.platformToken(p, "first", nil))
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wat := r.Header.Get("WorkloadAccessToken"); wat != "" {
			h.know(h.t, "WAT", wat[len(wat)/2:])
		}
		if r.Header.Get("Authorization") != "" {
			h.t.Error("the agent got the user's own token")
		}
		_, _ = io.WriteString(w, "booked")
	}))
	h.t.Cleanup(agent.Close)
	logs := &buffer{}
	s, err := sidecar.New(h.t.Context(), sidecar.Config{
		Endpoint: h.server.URL(), Credentials: sidecar.TokenFile(p.file, ""), Workload: "calendar-agent", Log: slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Addr: "127.0.0.1:0", IdentityAddr: "127.0.0.1:0", Agent: agent.URL, CallbackURL: returnURL, Now: func() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for what, token := range map[string]string{"good": jwt, "broken": jwt[:len(jwt)-8] + "AAAAAAAA", "none": "abc", "twice": jwt + " " + jwt} {
		r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, s.URL()+"/invocations", strings.NewReader(`{}`))
		if err != nil {
			h.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		got := do(h.t, r)
		if (got.status == http.StatusOK) != (what == "good") {
			h.t.Errorf("the sidecar with a token that is %s: %d %s", what, got.status, got.body)
		}
		h.keep(fmt.Sprintf("the sidecar's answer to a token that is %s", what), got)
	}
	for _, path := range []string{"/identities/oauth2/token", "/tabard/ListPrincipals", "/" + jwt} {
		r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, s.IdentityURL()+path, strings.NewReader(`{"workloadIdentityToken":"`+jwt+`"}`))
		if err != nil {
			h.t.Fatal(err)
		}
		h.keep("the sidecar's answer to the agent", do(h.t, r))
	}
	cancel()
	if err := <-done; err != nil {
		h.t.Errorf("the sidecar ended with %v", err)
	}
	h.saw("the sidecar's log", logs.String())
}
