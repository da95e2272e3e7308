package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/standin"
)

const (
	agentName    = "bench-agent"
	providerName = "bench-calendar"
	userName     = "bench-user"
	returnURL    = "http://127.0.0.1:9/done" // nobody listens: the browser stops before it
	clientID     = "bench-client"
)

// calendar is the provider that gives the one token. It lives in the load generator's process; after seeding nobody
// asks it anything, which the bench checks.
type calendar struct {
	*standin.Calendar
	srv *http.Server
	// secret of the client, in the only form that the API takes
	secret api.Sensitive
}

func startCalendar(secretText string) (*calendar, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c, err := standin.NewCalendar(standin.CalendarConfig{
		Issuer:              "http://" + l.Addr().String(),
		Clients:             []standin.Client{{ID: clientID, Secret: secret.New(secretText)}},
		AccessTokenLifetime: 24 * time.Hour, // nothing is refreshed while we measure
	})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	srv := &http.Server{Handler: c.Handler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }() // ends with close
	return &calendar{Calendar: c, srv: srv, secret: api.Sensitive(secretText)}, nil
}

func (c *calendar) close() error { return c.srv.Close() }

// seeded is a server that holds one user's token, and what it takes to ask for it.
type seeded struct {
	root, agent caller
	token       api.Sensitive // the provider's, that each answer must carry
}

// seed brings the server to the point where the agent's next call is a vault hit, through the public API alone: an
// agent with a key of its own, a provider, and the consent of a user in a (scripted) browser.
func seed(ctx context.Context, root caller, c *calendar) (*seeded, error) {
	s := &seeded{root: root, agent: caller{addr: root.addr}}
	workload := api.CreateWorkloadIdentityRequest{Name: agentName, AllowedResourceOauth2ReturnURLs: []string{returnURL}}
	if err := root.call(ctx, api.OpCreateWorkloadIdentity, workload, &api.CreateWorkloadIdentityResponse{}); err != nil {
		return nil, err
	}
	provider := api.CreateOauth2CredentialProviderRequest{
		Name: providerName, CredentialProviderVendor: api.CredentialProviderVendorTypeCustomOauth2,
		Oauth2ProviderConfigInput: &api.Oauth2ProviderConfigInput{CustomOauth2ProviderConfig: &api.CustomOauth2ProviderConfigInput{
			ClientID: clientID, ClientSecret: c.secret,
			OauthDiscovery: &api.Oauth2Discovery{DiscoveryURL: c.Issuer() + "/.well-known/openid-configuration"},
		}},
	}
	var created api.CreateOauth2CredentialProviderResponse
	if err := root.call(ctx, api.OpCreateOauth2CredentialProvider, provider, &created); err != nil {
		return nil, err
	}
	if err := c.AddRedirectURI(clientID, created.CallbackURL); err != nil {
		return nil, err
	}
	principal := api.CreatePrincipalRequest{Name: agentName, Roles: []api.PrincipalRole{api.PrincipalRoleAgent}, Workloads: []string{agentName}}
	if err := root.call(ctx, api.OpCreatePrincipal, principal, &api.CreatePrincipalResponse{}); err != nil {
		return nil, err
	}
	if err := (policies{form: formPrincipal, n: 1}).write(ctx, root); err != nil {
		return nil, err
	}
	var key api.CreateAccessKeyResponse
	if err := root.call(ctx, api.OpCreateAccessKey, api.CreateAccessKeyRequest{PrincipalName: agentName}, &key); err != nil {
		return nil, err
	}
	s.agent.keys = aws.Credentials{AccessKeyID: key.AccessKey.AccessKeyID, SecretAccessKey: string(key.AccessKey.SecretAccessKey)}
	return s, s.consent(ctx)
}

// consent has the user allow the agent to see the calendar, and takes note of the token.
func (s *seeded) consent(ctx context.Context) error {
	var pending, done api.GetResourceOauth2TokenResponse
	q, err := s.question(ctx)
	if err != nil {
		return err
	}
	if err := s.agent.call(ctx, api.OpGetResourceOauth2Token, q, &pending); err != nil {
		return err
	}
	browser := standin.NewBrowser()
	browser.Stop = func(u *url.URL) bool { return u.Host == "127.0.0.1:9" }
	end, err := browser.Approve(ctx, string(pending.AuthorizationURL), standin.CalendarUsers()[0])
	if err != nil {
		return err
	}
	if end.URL.Host != "127.0.0.1:9" {
		return fmt.Errorf("the consent ended at %s%s with status %d", end.URL.Host, end.URL.Path, end.Status)
	}
	complete := api.CompleteResourceTokenAuthRequest{SessionURI: pending.SessionURI, UserIdentifier: &api.UserIdentifier{UserID: userName}}
	if err := s.root.call(ctx, api.OpCompleteResourceTokenAuth, complete, &api.CompleteResourceTokenAuthResponse{}); err != nil {
		return err
	}
	if err := s.agent.call(ctx, api.OpGetResourceOauth2Token, q, &done); err != nil {
		return err
	}
	if done.AccessToken == "" {
		return errors.New("after the consent there is still no token")
	}
	s.token = done.AccessToken
	return nil
}

// question is the input of the workload, with a fresh workload access token: one lives 15 minutes.
func (s *seeded) question(ctx context.Context) (*api.GetResourceOauth2TokenRequest, error) {
	var wat api.GetWorkloadAccessTokenForUserIdResponse
	mint := api.GetWorkloadAccessTokenForUserIdRequest{WorkloadName: agentName, UserID: userName}
	if err := s.root.call(ctx, api.OpGetWorkloadAccessTokenForUserId, mint, &wat); err != nil {
		return nil, err
	}
	return &api.GetResourceOauth2TokenRequest{
		WorkloadIdentityToken: wat.WorkloadAccessToken, ResourceCredentialProviderName: providerName,
		Scopes: []string{standin.ScopeCalendarEvents}, Oauth2Flow: api.Oauth2FlowTypeUserFederation, ResourceOauth2ReturnURL: returnURL,
	}, nil
}

// vaultHit is the workload: the agent asks for the token that is stored.
func (s *seeded) vaultHit(ctx context.Context) (traffic, error) {
	q, err := s.question(ctx)
	if err != nil {
		return traffic{}, err
	}
	body, err := json.Marshal(q)
	if err != nil {
		return traffic{}, err
	}
	op, _ := api.Find(api.OpGetResourceOauth2Token)
	want := []byte(`"accessToken":"` + string(s.token) + `"`)
	return traffic{
		addr:    s.agent.addr,
		request: func(now time.Time) ([]byte, error) { return s.agent.wire(ctx, op, body, now) },
		check: func(body []byte) error {
			if !bytes.Contains(body, want) {
				return fmt.Errorf("the answer does not carry the stored token")
			}
			return nil
		},
	}, nil
}

// helloTraffic asks the first floor.
func helloTraffic(addr string) traffic {
	request := []byte("GET / HTTP/1.1\r\nHost: " + addr + "\r\nUser-Agent: tabard-bench\r\n\r\n")
	return traffic{
		addr:    addr,
		request: func(time.Time) ([]byte, error) { return request, nil },
		check: func(body []byte) error {
			if string(body) != "hello\n" {
				return fmt.Errorf("the floor answered %.40q", body)
			}
			return nil
		},
	}
}

// echoTraffic asks the second floor what like asks its server.
func echoTraffic(addr string, like traffic) traffic {
	return traffic{addr: addr, request: like.request, check: func(body []byte) error {
		if !bytes.Contains(body, []byte(`"accessToken":"`+echoToken+`"`)) {
			return fmt.Errorf("the floor answered %.40q", body)
		}
		return nil
	}}
}
