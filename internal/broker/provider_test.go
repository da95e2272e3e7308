package broker_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestCreateProvider(t *testing.T) {
	w := newWorld(t)
	p, err := w.Provider(t.Context(), w.admin, "cal")
	must(t, err)
	if want := "arn:aws:bedrock-agentcore:us-east-1:000000000000:token-vault/default/oauth2credentialprovider/cal"; p.ARN("us-east-1") != want {
		t.Errorf("got ARN %s, want %s", p.ARN("us-east-1"), want)
	}
	// UUIDv5 of the ARN in the URL namespace, computed by Python's uuid.uuid5(uuid.NAMESPACE_URL, arn).
	if want := publicURL + "/identities/oauth2/callback/06777f0e-68d3-5d69-9f42-63bf70a9bcfa"; w.CallbackURL(p) != want {
		t.Errorf("got callback URL %s, want %s", w.CallbackURL(p), want)
	}
	if n := w.provider.Hits(oauthtest.Metadata); n != 0 {
		t.Errorf("creating the provider contacted it %d times, want never", n)
	}
	_, err = w.CreateProvider(t.Context(), w.admin, w.spec("cal", "StrictOauth2"))
	wantError(t, "again", err, fault.Conflict, "Credential provider with name: cal already exists")
	_, err = w.CreateProvider(t.Context(), w.agentA, w.spec("new", "StrictOauth2"))
	wantCode(t, "by an agent", err, fault.Denied)
	_, err = w.Provider(t.Context(), caller(other, "root", access.Root), "cal")
	wantCode(t, "of another account", err, fault.NotFound)
	list, next, err := w.Providers(t.Context(), w.admin, "", 1)
	if err != nil || len(list) != 1 || next != "" {
		t.Errorf("got %d providers, next %q, %v, want one and no more", len(list), next, err)
	}
	if w.ConfigMember(p) != "customOauth2ProviderConfig" || p.SecretARN("us-east-1") == "" {
		t.Errorf("got member %s, secret %s", w.ConfigMember(p), p.SecretARN("us-east-1"))
	}
}

func TestCreateProviderRefuses(t *testing.T) {
	w := newWorld(t)
	inline := func(s *broker.ProviderSpec) {
		s.DiscoveryURL, s.Issuer, s.AuthorizationEndpoint, s.TokenEndpoint = "", "https://p.example", "https://p.example/a", "https://p.example/t"
	}
	const config = "oauth2ProviderConfigInput.customOauth2ProviderConfig."
	for name, c := range map[string]struct {
		change func(*broker.ProviderSpec)
		field  string
	}{
		"no client id":       {func(s *broker.ProviderSpec) { s.ClientID = "" }, config + "clientId"},
		"no secret":          {func(s *broker.ProviderSpec) { s.Secret = secret.Text{} }, config + "clientSecret"},
		"unknown vendor":     {func(s *broker.ProviderSpec) { s.Vendor = "NobodyOauth2" }, "credentialProviderVendor"},
		"other member":       {func(s *broker.ProviderSpec) { s.Member = "googleOauth2ProviderConfig" }, "oauth2ProviderConfigInput"},
		"plain http":         {func(s *broker.ProviderSpec) { s.DiscoveryURL = "http://p.example/x" }, config + "oauthDiscovery.discoveryUrl"},
		"user information":   {func(s *broker.ProviderSpec) { s.DiscoveryURL = "https://u:p@p.example/x" }, config + "oauthDiscovery.discoveryUrl"},
		"fragment":           {func(s *broker.ProviderSpec) { s.DiscoveryURL = "https://p.example/x#" }, config + "oauthDiscovery.discoveryUrl"},
		"other scheme":       {func(s *broker.ProviderSpec) { s.DiscoveryURL = "file:///etc/passwd" }, config + "oauthDiscovery.discoveryUrl"},
		"no token endpoint":  {func(s *broker.ProviderSpec) { inline(s); s.TokenEndpoint = "" }, config + "tokenEndpoint"},
		"bad token endpoint": {func(s *broker.ProviderSpec) { inline(s); s.TokenEndpoint = "javascript:alert(1)" }, config + "tokenEndpoint"},
		"unknown tag":        {func(s *broker.ProviderSpec) { s.Tags = map[string]string{"tabard:x": "y"} }, "tags"},
	} {
		s := w.spec("p", "CustomOauth2")
		c.change(&s)
		_, err := w.CreateProvider(t.Context(), w.admin, s)
		if wantCode(t, name, err, fault.Invalid); err != nil && fault.Public(err).Field != c.field {
			t.Errorf("%s: got field %q, want %q", name, fault.Public(err).Field, c.field)
		}
	}
	strict := w.strict()
	_, err := strict.CreateProvider(t.Context(), w.admin, w.spec("p", "CustomOauth2"))
	wantError(t, "loopback without --dev", err, fault.Invalid, "must use https")
	w.createProvider("public", "CustomOauth2", func(s *broker.ProviderSpec) { s.Secret, s.AuthMethod = secret.Text{}, broker.AuthNone })
}

// strict is the same server without --dev.
func (w *world) strict() *broker.Broker {
	w.t.Helper()
	c := w.config
	c.Dev = false
	b, err := broker.New(c)
	must(w.t, err)
	return b
}

// Nobody redirects stored tokens by editing an endpoint (threat D01).
func TestUpdateOfTheSecurityIdentity(t *testing.T) {
	elsewhere := oauthtest.New(t)
	for name, change := range map[string]func(*broker.ProviderSpec){
		"discovery URL": func(s *broker.ProviderSpec) { s.DiscoveryURL = elsewhere.URL + oauthtest.Metadata },
		"client id":     func(s *broker.ProviderSpec) { s.ClientID = "another" },
		"client auth":   func(s *broker.ProviderSpec) { s.AuthMethod = broker.AuthPost },
		"inline metadata": func(s *broker.ProviderSpec) {
			s.DiscoveryURL, s.Issuer, s.AuthorizationEndpoint, s.TokenEndpoint = "", elsewhere.URL, elsewhere.URL+"/authorize", elsewhere.URL+"/token"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old := w.consent("alice")
			wat := w.wat(w.agentA, "alice")
			machineOut := w.token(w.agentA, ask(wat, machine))
			begun := w.visit(w.pending(w.agentA, ask(wat, force)).Session)
			held := w.pending(w.agentA, ask(wat, force)).Session
			w.hold(held)
			sent := w.provider.Hits("/token")

			spec := w.spec("cal", "StrictOauth2")
			change(&spec)
			spec.Secret = secret.Text{}
			_, err := w.UpdateProvider(t.Context(), w.admin, spec)
			wantCode(t, "without the secret", err, fault.Invalid)
			w.token(w.agentA, ask(wat)) // nothing happened

			spec.Secret = secret.New(oauthtest.ClientSecret)
			_, err = w.UpdateProvider(t.Context(), w.admin, spec)
			must(t, err)
			for _, id := range []string{old.Connection, machineOut.Connection} {
				if c := w.connection(id); c.State != broker.NeedsReauth || c.Reason != "provider_changed" {
					t.Errorf("got state %s (%s), want needs_reauth (provider_changed)", c.State, c.Reason)
				}
			}
			w.pending(w.agentA, ask(wat))
			_, err = w.Callback(t.Context(), begun)
			wantEnding(t, "an open visit", err, broker.EndFailed)
			wantEnding(t, "a held code", w.complete(w.appA, held, "alice"), broker.EndFailed)
			if w.provider.Hits("/token") != sent || elsewhere.Hits("/token") != 0 {
				t.Error("a token endpoint got a request because of the update")
			}
		})
	}
}

// Whatever its row says, a connection of a former identity is not used.
func TestConnectionOfAFormerIdentity(t *testing.T) {
	w := newWorld(t)
	c := w.connection(w.consent("alice").Connection)
	spec := w.spec("cal", "StrictOauth2")
	spec.AuthMethod = broker.AuthPost
	_, err := w.UpdateProvider(t.Context(), w.admin, spec)
	must(t, err)
	must(t, w.db.SwapConnection(t.Context(), c, c.Generation)) // active again
	w.pending(w.agentA, ask(w.wat(w.agentA, "alice")))
}

// An update that leaves the identity alone leaves all else, and needs no secret; a new secret alone does not cost
// anybody's consent.
func TestUpdateWithoutChangeOfIdentity(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	open := w.pending(w.agentA, ask(wat, force)).Session
	for _, s := range []secret.Text{{}, secret.New("wrong"), secret.New(oauthtest.ClientSecret)} {
		spec := w.spec("cal", "StrictOauth2")
		spec.Secret = s
		_, err := w.UpdateProvider(t.Context(), w.admin, spec)
		must(t, err)
		w.token(w.agentA, ask(wat))
		_, err = w.Token(t.Context(), w.agentA, ask(wat, machine, force))
		if bad := s.Equal(secret.New("wrong")); bad != (err != nil) {
			t.Errorf("with the secret %q: a machine token gives %v", s.Expose(), err)
		}
	}
	w.hold(open)
	must(t, w.complete(w.appA, open, "alice"))
	_, err := w.UpdateProvider(t.Context(), w.admin, w.spec("cal", "CustomOauth2"))
	wantError(t, "another vendor", err, fault.Invalid, "create another provider")
	_, err = w.UpdateProvider(t.Context(), w.admin, w.spec("none", "CustomOauth2"))
	wantCode(t, "unknown", err, fault.NotFound)
	_, err = w.UpdateProvider(t.Context(), w.agentA, w.spec("cal", "StrictOauth2"))
	wantCode(t, "by an agent", err, fault.Denied)
}

func TestDeleteProvider(t *testing.T) {
	w := newWorld(t)
	old := w.consent("alice")
	wat := w.wat(w.agentA, "alice")
	open := w.pending(w.agentA, ask(wat, force)).Session
	visit := w.visit(open)
	must(t, w.DeleteProvider(t.Context(), w.admin, "cal"))
	_, err := w.Token(t.Context(), w.agentA, ask(wat))
	wantCode(t, "token", err, fault.NotFound)
	_, err = w.Callback(t.Context(), visit)
	wantEnding(t, "callback", err, broker.EndUnknown)
	wantEnding(t, "complete", w.complete(w.appA, open, "alice"), broker.EndUnknown)
	_, err = w.db.ConnectionByID(t.Context(), account, old.Connection)
	wantCode(t, "its connection", err, fault.NotFound)
	wantCode(t, "delete again", w.DeleteProvider(t.Context(), w.admin, "cal"), fault.NotFound)

	w.createProvider("cal", "StrictOauth2")
	w.pending(w.agentA, ask(wat)) // the name is the same, and nothing else
	_, err = w.Token(t.Context(), w.agentA, ask(wat, session(open)))
	wantEnding(t, "a session of before", err, broker.EndUnknown)
}

// The metadata of a provider moves its token endpoint: the client secret and the refresh token are not sent there,
// until an administrator brings the secret again.
func TestE18_TokenEndpointMoves(t *testing.T) {
	w := newWorld(t)
	w.consent("alice")
	evil := oauthtest.New(t)
	w.provider.SetMetadata("token_endpoint", evil.URL+"/token")
	w.expire(0)
	wat, before := w.wat(w.agentA, "alice"), w.provider.Hits("/token")
	_, err := w.Token(t.Context(), w.agentA, ask(wat))
	wantError(t, "refresh", err, fault.Denied, "moved its token endpoint to another host")
	_, err = w.Token(t.Context(), w.agentA, ask(wat, machine))
	wantCode(t, "machine token", err, fault.Denied)
	_, err = w.Authorize(t.Context(), w.pending(w.agentA, ask(wat, force)).Session)
	wantCode(t, "authorize", err, fault.Denied)
	if evil.Hits("/token") != 0 || w.provider.Hits("/token") != before {
		t.Errorf("a token endpoint got %d and %d requests, want none", evil.Hits("/token"), w.provider.Hits("/token")-before)
	}
	_, err = w.UpdateProvider(t.Context(), w.admin, w.spec("cal", "StrictOauth2")) // brings the secret
	must(t, err)
	_, err = w.Token(t.Context(), w.agentA, ask(wat, machine))
	must(t, err)
	if n := evil.Hits("/token"); n != 1 {
		t.Errorf("the new token endpoint got %d requests, want 1", n)
	}
}

// C17: a browser is sent to a registered address, exactly, and to no other.
func TestC17_ReturnURLs(t *testing.T) {
	w := newWorld(t)
	strict, wat := w.strict(), w.wat(w.agentA, "alice")
	returnTo := func(u string) func(*broker.Request) { return func(r *broker.Request) { r.ReturnURL = u } }
	out, err := strict.Token(t.Context(), w.agentA, ask(wat))
	if err != nil || out.Session == "" {
		t.Fatalf("the registered address is refused: %v", err)
	}
	refused := []string{
		returnURL + "/", returnURL + "?x=1", returnURL + "#", strings.ToUpper(returnURL), "https://app.example.com", returnURL[:len(returnURL)-1],
		"https://app.example.com:443/done", "https://app.example.com/%64one", "https://app.example.com/x/../done", "https://app.example.com.evil.example/done",
		"https://evil.example/?https://app.example.com/done", "https://app.example.com@evil.example/done", "//app.example.com/done",
		"javascript:alert(1)", "http://app.example.com/done", returnURL + "\n", " " + returnURL, "http://localhost:8000/done", "http://127.0.0.1/done",
	}
	for _, u := range refused {
		for _, change := range [][]func(*broker.Request){{}, {force}} {
			_, err := strict.Token(t.Context(), w.agentA, ask(wat, append(change, returnTo(u))...))
			wantError(t, u, err, fault.Invalid, "is not registered on workload identity agent-a")
		}
	}
	_, err = strict.Token(t.Context(), w.agentA, ask(wat, session(out.Session), returnTo("https://evil.example/")))
	wantError(t, "a poll with another address", err, fault.Invalid, "differs from the one")
	_, err = strict.Token(t.Context(), w.agentA, ask(wat, returnTo("")))
	wantText(t, "none", err, "You must provide a ResourceOauth2ReturnUrl to proceed with this flow")

	_, err = w.identity.UpdateWorkload(t.Context(), w.admin, "agent-a", []string{})
	must(t, err)
	_, err = strict.Token(t.Context(), w.agentA, ask(wat, returnTo("")))
	wantText(t, "none registered", err, "You must register and use at least one ResourceOauth2ReturnUrl on your workload identity to use this flow")
	_, err = strict.Token(t.Context(), w.agentA, ask(wat))
	wantError(t, "none registered", err, fault.Invalid, "You must register and use at least one ResourceOauth2ReturnUrl on your workload identity to use this flow")

	// Under --dev any address on loopback will do, and nothing else.
	for u, good := range map[string]bool{
		"http://localhost:3000/x": true, "http://127.0.0.1:1/": true, "http://[::1]:3000/": true, "https://localhost/": true,
		"http://localhost.evil.example/": false, "http://localhost@evil.example/": false, "http://user@localhost/": false,
		"http://localhost/#x": false, "javascript://localhost/": false, "http://10.0.0.1/": false, "http://127.0.0.1.evil.example/": false,
		"http://localhost\\@evil.example/": false, "http://127.1/": false,
	} {
		if _, err := w.Token(t.Context(), w.agentA, ask(wat, returnTo(u))); (err == nil) != good {
			t.Errorf("--dev: %q gives %v", u, err)
		}
	}
}

func wantText(t testing.TB, what string, err error, msg string) {
	t.Helper()
	if wantCode(t, what, err, fault.Invalid); err != nil && fault.Public(err).Msg != msg {
		t.Errorf("%s: got %q, want exactly %q", what, fault.Public(err).Msg, msg)
	}
}

// C18: what the app gave as state comes back in the query of the return URL, encoded, and does not change anything
// else of it.
func TestC18_CustomStateIsOpaque(t *testing.T) {
	w := newWorld(t)
	targets := []string{returnURL, "https://app.example.com/done?a=1", "https://app.example.com/done?", "https://app.example.com/done?a=1&", "com.example.app:/done"}
	_, err := w.identity.UpdateWorkload(t.Context(), w.admin, "agent-a", targets)
	must(t, err)
	for _, target := range targets {
		for _, state := range []string{
			"plain", "a\r\nSet-Cookie: x=1\r\n\r\n<script>", `"><img src=x onerror=alert(1)>`, "&session_id=urn:x&state=y#frag", "%0d%0a", "é\u202e\x00", strings.Repeat("s", 4096),
		} {
			s := w.pending(w.agentA, ask(w.wat(w.agentA, "alice"), func(r *broker.Request) { r.ReturnURL, r.CustomState = target, secret.New(state) })).Session
			v, err := w.Authorize(t.Context(), s)
			must(t, err)
			if strings.Contains(v.URL.Expose(), "plain") {
				t.Error("the custom state is sent to the provider")
			}
			to, err := w.Callback(t.Context(), w.answer(v))
			must(t, err)
			raw, q := to.Expose(), query(t, to)
			if !strings.HasPrefix(raw, target) || strings.ContainsAny(raw, "\r\n\"<>#\x00 ") || strings.ContainsFunc(raw, func(r rune) bool { return r > 0x7e }) {
				t.Errorf("%q with state %.40q: the browser is sent to %.120q", target, state, raw)
			}
			if !slices.Equal(q["state"], []string{state}) || !slices.Equal(q["session_id"], []string{s}) {
				t.Errorf("%q with state %.40q: got %.200v back", target, state, q)
			}
		}
	}
}

// C19: what the broker sets, a caller does not, in whatever spelling.
func TestC19_CustomParametersCannotOverride(t *testing.T) {
	w := newWorld(t)
	wat := w.wat(w.agentA, "alice")
	with := func(params ...string) func(*broker.Request) {
		return func(r *broker.Request) {
			r.CustomParameters = map[string]secret.Text{}
			for _, p := range params {
				r.CustomParameters[p] = secret.New("evil")
			}
		}
	}
	for _, name := range []string{
		"client_id", "redirect_uri", "state", "scope", "response_type", "code_challenge", "code_challenge_method", "nonce", "request",
		"request_uri", "resource", "client_secret", "response_mode", "code", "code_verifier", "grant_type", "refresh_token",
		"client_assertion", "client_assertion_type", "username", "password", "assertion",
	} {
		for _, spelled := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], strings.ReplaceAll(name, "_", ".")} {
			for _, r := range []broker.Request{ask(wat, with(spelled)), ask(wat, with(spelled, "ok"), force), ask(wat, with(spelled), machine)} {
				_, err := w.Token(t.Context(), w.agentA, r)
				wantError(t, spelled, err, fault.Invalid, "the parameter "+spelled+" is set by the broker")
			}
		}
	}
	_, err := w.Token(t.Context(), w.agentA, ask(wat, with("prompt", "Prompt")))
	wantError(t, "one name in two spellings", err, fault.Invalid, "occurs twice")

	p := w.pending(w.agentA, ask(wat, with("prompt", "audience", "x-y.z")))
	v, err := w.Authorize(t.Context(), p.Session)
	must(t, err)
	q := query(t, v.URL)
	if q.Get("prompt") != "evil" || q.Get("audience") != "evil" || q.Get("x-y.z") != "evil" {
		t.Errorf("got %v, want the parameters that the caller may set", q)
	}
	must(t, deleteAll(q, "prompt", "audience", "x-y.z", "code_challenge", "state"))
	want := map[string][]string{
		"client_id": {oauthtest.ClientID}, "redirect_uri": {w.callback("cal")}, "scope": {"read"}, "response_type": {"code"}, "code_challenge_method": {"S256"},
	}
	if d := cmp.Diff(want, map[string][]string(q)); d != "" {
		t.Errorf("authorization request (-want +got):\n%s", d)
	}
}

func (w *world) callback(name string) string {
	p, err := w.Provider(w.t.Context(), w.admin, name)
	must(w.t, err)
	return w.CallbackURL(p)
}

// deleteAll removes the members, each of which must be there once.
func deleteAll(q map[string][]string, names ...string) error {
	for _, n := range names {
		if len(q[n]) != 1 {
			return fmt.Errorf("%s occurs %d times in %v", n, len(q[n]), slices.Collect(maps.Keys(q)))
		}
		delete(q, n)
	}
	return nil
}
