package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
	"github.com/tabard-id/tabard/internal/oauth/oauthtest"
)

// corporateIssuer is an issuer whose key the test has, so that it can have as many users as it likes.
const corporateIssuer = "https://users.example.com"

// crowd trusts an issuer and returns a function that makes the token of any of its users.
func (w *world) crowd() func(user string) string {
	w.t.Helper()
	key := jwstest.Stranger(w.t)
	w.call(root(), "CreateTrustedIssuer", map[string]any{
		"issuer": corporateIssuer, "audiences": []string{appClient}, "jwks": string(jwstest.Set(w.t, jwstest.Key(w.t, "k", &key.PublicKey, nil))),
	})
	return func(user string) string {
		now := time.Now().Add(time.Duration(w.ahead.Load()))
		return jwstest.Sign(w.t, "ES256", map[string]any{"kid": "k"}, map[string]any{
			"iss": corporateIssuer, "sub": user, "aud": appClient, "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
		}, key)
	}
}

// exchanger makes a provider that gives a token of its own for any user's token, without consent.
func (w *world) exchanger(name string) {
	w.t.Helper()
	provider := oauthtest.New(w.t)
	_, err := w.control(root()).CreateOauth2CredentialProvider(w.t.Context(), &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: &name, CredentialProviderVendor: types.CredentialProviderVendorTypeCustomOauth2,
		Oauth2ProviderConfigInput: &types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig{Value: types.CustomOauth2ProviderConfigInput{
			OauthDiscovery: &types.Oauth2DiscoveryMemberDiscoveryUrl{Value: provider.URL + oauthtest.Metadata},
			ClientId:       aws.String(oauthtest.ClientID), ClientSecret: aws.String(oauthtest.ClientSecret),
			OnBehalfOfTokenExchangeConfig: &types.OnBehalfOfTokenExchangeConfigType{GrantType: types.OnBehalfOfTokenExchangeGrantTypeTypeTokenExchange},
		}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// steal asks for the user's token as somebody who has the agent's key and sees the user's token. It returns the answer,
// of the mint where that was refused.
func (w *world) steal(agent key, jwt string) reply {
	minted := w.post(agent, "GetWorkloadAccessTokenForJWT", encode(w.t, map[string]any{"workloadName": "agent", "userToken": jwt}))
	if minted.status != http.StatusOK {
		return minted
	}
	return w.post(agent, "GetResourceOauth2Token", encode(w.t, map[string]any{
		"workloadIdentityToken": minted.get("workloadAccessToken"), "resourceCredentialProviderName": "desk",
		"oauth2Flow": "ON_BEHALF_OF_TOKEN_EXCHANGE", "scopes": []string{"read"},
	}))
}

// number is a member of an answer that is a number.
func (r reply) number(name string) float64 {
	var members map[string]any
	_ = json.Unmarshal([]byte(r.body), &members)
	n, _ := members[name].(float64)
	return n
}

// TestStolenAgentCredentialYieldsNUsers: who has an agent's key and sees the tokens of its users gets the tokens of N
// users, N being the agent's ceiling, however many replicas are asked at a time. Then the agent is stopped, and that is
// reported.
func TestStolenAgentCredentialYieldsNUsers(t *testing.T) {
	const n, users = 5, 20
	engines(t, func(t *testing.T, db string) {
		one := newWorld(t, db)
		jwt := one.crowd()
		one.workload("agent")
		one.exchanger("desk")
		agent := one.principal("agent", "agent", "agent")
		two := one
		if db != daemon.SQLite {
			two = one.replica()
		}
		one.call(root(), "SetCeilings", map[string]any{"workloadName": "agent", "ceilings": map[string]any{"usersPerHour": n, "freeze": true}})
		// The first user is served everywhere, before the theft; also the replica has the ceiling now.
		if !eventually(3*time.Second, func() bool {
			return two.call(root(), "GetCeilings", map[string]any{"workloadName": "agent"}).body != ""
		}) {
			t.Fatal("no ceilings")
		}
		tokens := make(map[string]int)
		var mu sync.Mutex // guards tokens
		var group sync.WaitGroup
		for i := range 2 * users {
			user, w := fmt.Sprint("user-", i/2), []*world{one, two}[i%2]
			own := jwt(user)
			group.Go(func() {
				r := w.steal(agent, own)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case r.status == http.StatusOK && r.get("accessToken") != "":
					tokens[user]++
				case r.status != http.StatusTooManyRequests && r.status != http.StatusUnauthorized && r.status != http.StatusForbidden:
					t.Errorf("%s: %d %s", user, r.status, r.body)
				}
			})
		}
		group.Wait()
		if len(tokens) != n {
			t.Errorf("the thief got tokens of %d users, want %d", len(tokens), n)
		}
		if !eventually(2*time.Second, func() bool {
			return one.steal(agent, jwt("user-0")).status != http.StatusOK && two.steal(agent, jwt("user-1")).status != http.StatusOK
		}) {
			t.Error("two seconds later the agent still works")
		}
		one.reported(n)

		one.call(root(), "SetCeilings", map[string]any{"workloadName": "agent", "ceilings": map[string]any{"usersPerHour": n}})
		one.call(root(), "EnableWorkloadIdentity", map[string]any{"name": "agent"})
		for user := range tokens {
			if r := one.steal(agent, jwt(user)); r.status != http.StatusOK {
				t.Errorf("%s, who is counted, after the agent was enabled: %d %s", user, r.status, r.body)
			}
		}
		refused := one.steal(agent, jwt("nobody-yet"))
		if refused.status != http.StatusTooManyRequests || !strings.Contains(refused.body, "ceiling") || !strings.Contains(refused.body, "SetCeilings") {
			t.Errorf("one more user: %d %s, want 429 that names the ceiling", refused.status, refused.body)
		}
		if status := one.call(root(), "GetCeilings", map[string]any{"workloadName": "agent"}).get("status"); status != "ACTIVE" {
			t.Errorf("crossing without freeze: the agent is %s", status)
		}
	})
}

// reported wants the trail and GetCeilings to tell of a crossed ceiling of n users and of a frozen agent.
func (w *world) reported(n float64) {
	w.t.Helper()
	held := w.call(root(), "GetCeilings", map[string]any{"workloadName": "agent"})
	// Another replica may have frozen it: what this one has read may be a second old.
	eventually(2*time.Second, func() bool {
		held = w.call(root(), "GetCeilings", map[string]any{"workloadName": "agent"})
		return held.get("status") == "FROZEN"
	})
	if held.get("status") != "FROZEN" || held.number("usersThisHour") != n {
		w.t.Errorf("GetCeilings: %s, want FROZEN with %v users", held.body, n)
	}
	trail := w.call(root(), "ListAuditRecords", map[string]any{"maxResults": 1000}).body
	for _, want := range []string{`"CeilingCrossed"`, `"frozen"`, `"ceiling"`} {
		if !strings.Contains(trail, want) {
			w.t.Errorf("the trail has no %s", want)
		}
	}
}

// TestReleasesPerMinute: an agent has as many releases in a minute as its ceiling says, however many replicas it asks,
// and again as many in the next.
func TestReleasesPerMinute(t *testing.T) {
	const n = 40
	engines(t, func(t *testing.T, db string) {
		one := newWorld(t, db)
		one.workload("agent")
		agent := one.principal("agent", "agent", "agent")
		one.call(root(), "CreateApiKeyCredentialProvider", map[string]any{"name": "weather", "apiKey": "canary-api-key-51c7"})
		one.call(root(), "SetCeilings", map[string]any{"workloadName": "agent", "ceilings": map[string]any{"releasesPerMinute": n}})
		two := one
		if db != daemon.SQLite {
			two = one.replica()
		}
		// Each round is at the beginning of a minute by the servers' clock, so that it does not reach into the next.
		for round := range 2 {
			into := time.Duration(time.Now().Add(time.Duration(one.ahead.Load())).UnixNano()) % time.Minute
			ahead := one.ahead.Load() + int64(time.Minute-into)
			one.ahead.Store(ahead)
			two.ahead.Store(ahead)
			wat := one.call(agent, "GetWorkloadAccessToken", map[string]any{"workloadName": "agent"}).get("workloadAccessToken")
			ask := encode(t, map[string]any{"workloadIdentityToken": wat, "resourceCredentialProviderName": "weather"})
			released, refused := 0, 0
			var mu sync.Mutex // guards both
			var group sync.WaitGroup
			for i := range 8 {
				w := []*world{one, two}[i%2]
				group.Go(func() {
					for range 10 {
						r := do(t, w.request(agent, "POST", "/identities/api-key", ask))
						mu.Lock()
						switch r.status {
						case http.StatusOK:
							released++
						case http.StatusTooManyRequests:
							refused++
						default:
							t.Errorf("%d %s", r.status, r.body)
						}
						mu.Unlock()
					}
				})
			}
			group.Wait()
			if released != n || refused != 80-n {
				t.Errorf("round %d: %d releases and %d refusals, want %d and %d", round, released, refused, n, 80-n)
			}
		}
	})
}
