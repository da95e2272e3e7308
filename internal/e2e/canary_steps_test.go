package e2e_test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// echo answers a token request with an error that repeats everything that came with it, as debugging providers do.
func echo(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err) // it is in memory
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			panic(err)
		}
		_, password, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":%q,"error_description":%q,"error_uri":%q}`, code,
			fmt.Sprintf("no: %s %s %s %s %s", form.Get("code"), form.Get("refresh_token"), password, form.Get("code_verifier"), r.Header.Get("Authorization")),
			"https://idp.example/?"+string(body))
	}
}

// echoHTML answers with a page that holds the request.
func echoHTML(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(w, "<html><pre>%s %s</pre>", r.Header.Get("Authorization"), body)
	}
}

// half answers with a token and breaks off, so that the answer is no JSON.
func half(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"access_token":"`+rand.Text()+`","refresh_token":"`+rand.Text()+`","token_type":`)
}

// hold stops a token request at the provider until the test has looked around.
func (h *hunt) hold(w http.ResponseWriter, r *http.Request) {
	h.paused <- struct{}{}
	<-h.resume
	echo(http.StatusServiceUnavailable, "temporarily_unavailable")(w, r)
}

// bookings is the good way with a provider that stumbles: consent, a redemption on the second try, hits, refreshes.
func (h *hunt) bookings(jwt string) {
	wat := h.mint(jwt)
	for _, provider := range []string{"maps", "none"} {
		h.send(h.agent, "GetResourceApiKey", encode(h.t, map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": provider}))
	}
	ask, session, address := h.begin(wat)
	end := h.walk(peer.NewBrowser(h.alice), address)
	if end.URL.Query().Get("session_id") != session {
		h.t.Fatalf("the browser ended at %s %d\n%s", end.URL, end.Status, end.Body)
	}
	h.tokens.answer(echo(http.StatusServiceUnavailable, "temporarily_unavailable"))
	if r := h.complete(h.app, session, jwt); r.status != http.StatusServiceUnavailable {
		h.t.Fatalf("Complete with a provider that is busy: %d %s", r.status, r.body)
	}
	if r := h.complete(h.app, session, jwt); r.status != http.StatusOK {
		h.t.Fatalf("Complete: %d %s", r.status, r.body)
	}
	poll := h.ask(wat)
	poll["sessionUri"] = session
	for _, in := range []map[string]any{poll, ask} {
		if h.tell(h.agent, "GetResourceOauth2Token", in).get("accessToken") == "" {
			h.t.Fatal("no token after Complete")
		}
	}
	h.ahead.Add(int64(90 * time.Second))
	h.tokens.answer(echo(http.StatusInternalServerError, "server_error"), echo(http.StatusUnauthorized, "invalid_client"), echoHTML(http.StatusBadGateway), h.hold)
	for range 3 {
		h.fails(h.agent, "GetResourceOauth2Token", ask, http.StatusServiceUnavailable, http.StatusForbidden, http.StatusBadRequest, http.StatusInternalServerError)
	}
	held := make(chan reply)
	go func() { held <- h.send(h.agent, "GetResourceOauth2Token", encode(h.t, ask)) }()
	select {
	case <-h.paused:
	case <-time.After(20 * time.Second):
		h.t.Fatal("the refresh does not reach the provider")
	}
	h.adminPages()
	h.resume <- struct{}{}
	<-held
	if h.tell(h.agent, "GetResourceOauth2Token", ask).get("accessToken") == "" {
		h.t.Fatal("no token after the refresh")
	}
	h.ahead.Add(int64(90 * time.Second))
	h.tokens.answer(echo(http.StatusBadRequest, "invalid_grant"))
	if h.tell(h.agent, "GetResourceOauth2Token", ask).get("authorizationUrl") == "" {
		h.t.Error("a refused refresh does not ask for consent")
	}
}

// refusals are calls that are well formed and may not succeed.
func (h *hunt) refusals(jwt string) {
	bob := h.login(h.bob)
	wat := h.mint(jwt)
	ask, session, address := h.begin(wat)
	h.walk(peer.NewBrowser(h.bob), address)
	wrong := key{h.agent.ID, rand.Text()}
	h.know(h.t, "access key", wrong.Secret)
	h.fails(wrong, "GetResourceOauth2Token", ask, http.StatusForbidden)
	h.fails(wrong, "GetWorkloadAccessTokenForJWT", map[string]any{"workloadName": "calendar-agent", "userToken": jwt}, http.StatusForbidden)
	// People paste the secret where the id belongs.
	h.fails(key{h.agent.Secret, h.agent.ID}, "GetResourceOauth2Token", ask, http.StatusForbidden)
	h.fails(h.app, "GetResourceOauth2Token", ask, http.StatusForbidden)
	if r := h.complete(h.agent, session, jwt); r.status != http.StatusForbidden {
		h.t.Errorf("the agent completes its own session: %d", r.status)
	}
	if r := h.complete(h.app, session, jwt[:len(jwt)-8]+"AAAAAAAA"); r.status != http.StatusUnauthorized {
		h.t.Errorf("Complete with a broken signature: %d %s", r.status, r.body)
	}
	if r := h.complete(h.app, session, bob); r.status != http.StatusForbidden {
		h.t.Errorf("bob completes alice's session: %d", r.status)
	}
	ask["sessionUri"] = session
	h.fails(h.agent, "GetResourceOauth2Token", ask, http.StatusForbidden, http.StatusBadRequest)
	ask["sessionUri"], ask["workloadIdentityToken"] = session, wat[:len(wat)-4]+"AAAA"
	h.fails(h.agent, "GetResourceOauth2Token", ask, http.StatusUnauthorized)
}

// consentsThatFail are browsers' ways that end on a page.
func (h *hunt) consentsThatFail(jwt string) {
	wat := h.mint(jwt)
	_, session, address := h.begin(wat)
	deny := peer.NewBrowser(h.alice)
	deny.Deny = true
	if end := h.walk(deny, address); end.Status != http.StatusForbidden {
		h.t.Errorf("denied consent ended with %d\n%s", end.Status, end.Body)
	}
	h.complete(h.app, session, jwt)
	for _, answer := range []http.HandlerFunc{echo(http.StatusBadRequest, "invalid_grant"), echo(http.StatusOK, "bad_verification_code"), echoHTML(http.StatusOK), half} {
		_, session, address := h.begin(wat)
		h.walk(peer.NewBrowser(h.alice), address)
		h.tokens.answer(answer)
		if r := h.complete(h.app, session, jwt); r.status/100 != 4 {
			h.t.Errorf("Complete with a provider that refuses the code: %d %s", r.status, r.body)
		}
	}
	_, session, address = h.begin(wat)
	b := peer.NewBrowser(h.alice)
	h.walk(b, address)
	for _, visited := range b.Trail {
		if strings.Contains(visited, "/callback/") && strings.HasPrefix(visited, h.front.URL) {
			page(h.t, "GET", visited)                                           // another browser, and replayed
			page(h.t, "HEAD", visited)                                          // a preview
			page(h.t, "GET", visited+"&code=twice")                             // repeated
			page(h.t, "GET", visited+"&%zz")                                    // malformed
			page(h.t, "GET", strings.Replace(visited, "/callback/", "//x/", 1)) // no route
			h.keep("POST to the callback", page(h.t, "POST", visited))
			b.Walk(h.t, visited, returnURL) // replayed by the same browser
		}
	}
	page(h.t, "GET", address)
	page(h.t, "GET", address+"&request_uri="+url.QueryEscape(session))
	page(h.t, "GET", address+"x")
	if r := h.complete(h.app, session, jwt); r.status != http.StatusOK {
		h.t.Errorf("Complete after the noise: %d %s", r.status, r.body)
	}
}

// brokenRequests are requests that are malformed and hold secrets.
func (h *hunt) brokenRequests(jwt string) {
	wat := h.mint(jwt)
	ask, _, _ := h.begin(wat)
	good, secret := encode(h.t, ask), rand.Text()
	h.know(h.t, "custom parameter", secret)
	for _, body := range []string{
		good[:len(good)-1], good + good, strings.Replace(good, "{", `{"customState":"`+secret+`",`, 1), `["` + secret + `"]`, `"` + wat + `"`,
		`{"unknown":"` + secret + `"}`, `{"customState":"` + secret + "\xff\"}", `{"customState":{"a":"` + secret + `"}}`, wat, `{"workloadIdentityToken":"` + wat + "\n\"}",
		`{"customParameters":{"redirect_uri":"` + secret + `"}}`, `{"workloadIdentityToken":["` + wat + `"],"scopes":"` + secret + `"}`,
		`{"workloadIdentityToken":"Bearer ` + wat + `","resourceCredentialProviderName":"calendar","scopes":[],"oauth2Flow":"` + secret + `"}`,
		`{"workloadIdentityToken":"calendar","resourceCredentialProviderName":"` + wat + `","scopes":[],"oauth2Flow":"M2M"}`, // members swapped
		`{"sessionUri":"` + jwt + `","userIdentifier":{"userToken":"` + jwt + `","userId":"` + secret + `"}}`,
		`{"userToken":"calendar-agent","workloadName":"` + jwt + `"}`,
		`{"workloadName":"calendar-agent","userToken":"` + jwt + " " + jwt + `"}`,
		`{"workloadName":"calendar-agent","userToken":"` + jwt + `.` + secret + `"}`,
		`{"name":"p","credentialProviderVendor":"CustomOauth2","oauth2ProviderConfigInput":{"customOauth2ProviderConfig":{"clientSecret":"` + secret + `","clientid":"x"}}}`,
		`{"name":"p","credentialProviderVendor":"CustomOauth2","oauth2ProviderConfigInput":{"customOauth2ProviderConfig":{"clientSecret":"` + secret +
			`","clientId":"x","oauthDiscovery":{"discoveryUrl":"https://user:` + secret + `@idp.example/.well-known/openid-configuration"}}}}`,
		`{"customState":"` + secret + strings.Repeat("x", 600<<10) + `"}`,
	} {
		for _, op := range []string{"GetResourceOauth2Token", "GetWorkloadAccessTokenForJWT", "CompleteResourceTokenAuth", "CreateOauth2CredentialProvider"} {
			k := h.agent
			if op == "CompleteResourceTokenAuth" {
				k = h.app
			} else if op == "CreateOauth2CredentialProvider" {
				k = root()
			}
			if r := h.send(k, op, body); r.status/100 != 4 {
				h.t.Errorf("%s with a malformed body answered %d %s\n%.200s", op, r.status, r.body, body)
			}
		}
	}
	for _, name := range []string{"scope", "state", "client_id", "code_challenge"} {
		ask["customParameters"] = map[string]string{name: secret}
		h.fails(h.agent, "GetResourceOauth2Token", ask, http.StatusBadRequest)
	}
	h.oddPlaces(jwt, wat, good)
}

// oddPlaces sends secrets where none belong: paths, queries, headers.
func (h *hunt) oddPlaces(jwt, wat, good string) {
	paths := []string{"/identities/oauth2/token?workloadIdentityToken=" + wat, "/identities/" + wat, "/tabard/" + h.agent.Secret, "/?X-Amz-Signature=" + h.agent.Secret}
	for _, path := range paths {
		h.keep("POST "+path[:10], do(h.t, h.request(h.agent, "POST", path, good)))
		h.keep("GET "+path[:10], do(h.t, h.request(h.agent, "GET", path, "")))
	}
	for name, value := range map[string]string{
		"Authorization":        "Bearer " + jwt,
		"X-Amz-Security-Token": h.agent.Secret,
		"X-Amz-Date":           h.agent.Secret,
		"X-Amz-Content-Sha256": h.agent.Secret,
		"User-Agent":           wat,
		"X-Forwarded-For":      wat,
		"Cookie":               "session=" + wat,
		"WorkloadAccessToken":  wat,
		"X-Amzn-Requestid":     wat,
	} {
		r := h.request(h.agent, "POST", "/identities/oauth2/token", good)
		r.Header.Set(name, value)
		h.keep("header "+name, do(h.t, r))
	}
	for _, authorization := range []string{"AWS4-HMAC-SHA256 " + h.agent.Secret, "AWS4-HMAC-SHA256 Credential=" + h.agent.Secret + ", SignedHeaders=host, Signature=" + h.agent.Secret, h.agent.Secret} {
		r := h.request(h.agent, "POST", "/identities/oauth2/token", good)
		r.Header.Set("Authorization", authorization)
		h.keep("Authorization", do(h.t, r))
	}
}

// machines is what agents do without a user's token.
func (h *hunt) machines() {
	machine := h.tell(h.agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "calendar-agent"}).get("workloadAccessToken")
	ask := map[string]any{"workloadIdentityToken": machine, "resourceCredentialProviderName": "calendar", "oauth2Flow": "M2M", "scopes": []string{}}
	h.tokens.answer(echo(http.StatusUnauthorized, "invalid_client"))
	h.fails(h.agent, "GetResourceOauth2Token", ask, http.StatusForbidden, http.StatusBadRequest, http.StatusServiceUnavailable, http.StatusInternalServerError)
	for range 2 {
		if h.tell(h.agent, "GetResourceOauth2Token", ask).get("accessToken") == "" {
			h.t.Error("no token of the machine")
		}
	}
	id := "carol-" + rand.Text()
	h.know(h.t, "subject", id)
	asserted := map[string]any{"workloadName": "calendar-agent", "userId": id}
	h.fails(h.agent, "GetWorkloadAccessTokenForUserId", asserted, http.StatusForbidden)
	wat := h.tell(root(), "GetWorkloadAccessTokenForUserId", asserted).get("workloadAccessToken")
	in := h.ask(wat)
	session := h.tell(root(), "GetResourceOauth2Token", in).get("sessionUri")
	h.walk(peer.NewBrowser(h.alice), h.front.URL+"/identities/oauth2/authorize?request_uri="+url.QueryEscape(session))
	done := map[string]any{"sessionUri": session, "userIdentifier": map[string]any{"userId": id}}
	h.tell(root(), "CompleteResourceTokenAuth", done)
	done["userIdentifier"] = map[string]any{"userId": id + "x"}
	h.fails(root(), "CompleteResourceTokenAuth", done, http.StatusForbidden)
}

// operators is what administrators do, and every list and get there is.
func (h *hunt) operators() {
	h.tell(root(), "CreatePrincipal", map[string]any{"name": "other", "roles": []string{"agent"}, "workloads": []string{"calendar-agent"}})
	h.tell(root(), "CreateAccessKey", map[string]any{"principalName": "other"})
	again := map[string]any{"name": "calendar", "credentialProviderVendor": "CustomOauth2", "oauth2ProviderConfigInput": h.config(h.clientSecret)}
	h.fails(root(), "CreateOauth2CredentialProvider", again, http.StatusConflict)
	h.fails(h.agent, "CreateOauth2CredentialProvider", again, http.StatusForbidden)
	next := rand.Text()
	h.know(h.t, "client secret", next)
	again["oauth2ProviderConfigInput"] = h.config(next)
	h.tell(root(), "UpdateOauth2CredentialProvider", again)
	for op, in := range reads() {
		h.tell(root(), op, in)
	}
}

// reads are the operations that show something stored.
func reads() map[string]map[string]any {
	return map[string]map[string]any{
		"GetWorkloadIdentity": {"name": "calendar-agent"}, "ListWorkloadIdentities": {}, "GetOauth2CredentialProvider": {"name": "calendar"},
		"ListOauth2CredentialProviders": {}, "ListTrustedIssuers": {}, "ListPrincipals": {}, "ListAccessKeys": {"principalName": "agent"},
		"ListAuditRecords": {"maxResults": 1000}, "ListApiKeyCredentialProviders": {}, "GetTokenVault": {},
		"GetApiKeyCredentialProvider": {"name": "maps"}, "ListPolicies": {}, "GetPolicy": {"name": "all:agent"},
	}
}

// expiry comes last: the server's clock is past the end of every token.
func (h *hunt) expiry(jwt string) {
	wat := h.mint(jwt)
	ask, session, address := h.begin(wat)
	h.ahead.Add(int64(2 * time.Hour))
	h.fails(h.agent, "GetResourceOauth2Token", ask, http.StatusUnauthorized)
	h.fails(h.agent, "GetWorkloadAccessTokenForJWT", map[string]any{"workloadName": "calendar-agent", "userToken": jwt}, http.StatusUnauthorized)
	if r := h.complete(h.app, session, jwt); r.status/100 != 4 {
		h.t.Errorf("Complete of an expired session: %d %s", r.status, r.body)
	}
	page(h.t, "GET", address)
}
