package oauth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Redeem exchanges a code (RFC 6749 §4.1.3) with its PKCE verifier (RFC 7636 §4.5), in one request that is never
// repeated. A failure is a *broker.UpstreamError; see classify for its kinds.
func (c *Client) Redeem(ctx context.Context, e broker.Endpoints, p broker.Provider, v broker.Vendor, clientSecret secret.Text, r broker.CodeGrant) (broker.Grant, error) {
	form := url.Values{
		"grant_type":   {"authorization_code"},
		"code":         {r.Code.Expose()},
		"redirect_uri": {r.RedirectURI},
	}
	if !v.NoPKCE {
		form.Set("code_verifier", r.Verifier.Expose())
	}
	addTargets(form, r.Resources, nil)
	return c.exchange(ctx, e, p, v, form, clientSecret, r.Code, r.Verifier)
}

// Refresh uses a refresh token (RFC 6749 §6), in one request that is never repeated. A failure is a
// *broker.UpstreamError.
func (c *Client) Refresh(ctx context.Context, e broker.Endpoints, p broker.Provider, v broker.Vendor, clientSecret, refresh secret.Text, r broker.TokenRequest) (broker.Grant, error) {
	form := tokenForm("refresh_token", v, r)
	form.Set("refresh_token", refresh.Expose())
	grant, err := c.exchange(ctx, e, p, v, form, clientSecret, refresh)
	if v.UserScopes != "" {
		grant.Scopes = nil // nothing in this answer says whose scopes they are; a refresh changes none
	}
	return grant, err
}

// ClientCredentials asks for a token of the client itself (RFC 6749 §4.4.2), in one request that is never repeated. A
// failure is a *broker.UpstreamError.
func (c *Client) ClientCredentials(ctx context.Context, e broker.Endpoints, p broker.Provider, v broker.Vendor, clientSecret secret.Text, r broker.TokenRequest) (broker.Grant, error) {
	return c.exchange(ctx, e, p, v, tokenForm("client_credentials", v, r), clientSecret)
}

func tokenForm(grantType string, v broker.Vendor, r broker.TokenRequest) url.Values {
	form := url.Values{}
	addCustom(form, r.Custom, r.Audiences)
	form.Set("grant_type", grantType)
	setScopes(form, v, r.Scopes)
	addTargets(form, r.Resources, r.Audiences)
	return form
}

// exchange authenticates the client, sends form and reads the answer. The secrets in it are known to it only so that a
// provider that echoes one in an error does not bring it back.
func (c *Client) exchange(ctx context.Context, e broker.Endpoints, p broker.Provider, v broker.Vendor, form url.Values, clientSecret secret.Text, sent ...secret.Text) (broker.Grant, error) {
	if _, err := c.parseURL(e.Token); err != nil {
		return broker.Grant{}, fault.Wrap(fault.Invalid, err, "the token endpoint of provider %s cannot be used: %s", p.Name, err)
	}
	header := c.tokenHeader(p, v)
	authenticate(header, form, p, v, clientSecret)
	body, err := encodeBody(v, form)
	if err != nil {
		return broker.Grant{}, fault.Wrap(fault.Internal, err, "the request to provider %s could not be written", p.Name)
	}
	o, err := c.of(p.Account)
	if err != nil {
		return broker.Grant{}, err
	}
	answer, err := o.post(ctx, e.Token, header, body)
	if err != nil {
		return broker.Grant{}, err
	}
	sent = append(sent, clientSecret)
	if _, credentials, ok := strings.Cut(header.Get("Authorization"), " "); ok {
		sent = append(sent, secret.New(credentials)) // some providers quote the header in what they say about it
	}
	return classify(answer, v, sent)
}

// authenticate adds the client's id and secret (or assertion, which comes in its place) the one way the provider is
// configured for. Trying one way and then another, as golang.org/x/oauth2 does, would use the grant twice.
func authenticate(header http.Header, form url.Values, p broker.Provider, v broker.Vendor, clientSecret secret.Text) {
	method := p.AuthMethod
	if method == "" {
		method = v.AuthMethod
	}
	switch {
	case method == noClient:
	case method == broker.AuthNone || clientSecret.IsZero():
		form.Set("client_id", p.ClientID)
	case method.Asserts(): // RFC 7523 §2.2: the client id is optional where the assertion says who it is
		if p.ClientID != "" {
			form.Set("client_id", p.ClientID)
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", clientSecret.Expose())
	case method == broker.AuthPost:
		form.Set("client_id", p.ClientID)
		form.Set("client_secret", clientSecret.Expose())
	default:
		// RFC 6749 §2.3.1: both are form-encoded before they are joined, so that a colon in the id is no separator.
		r := http.Request{Header: header}
		r.SetBasicAuth(url.QueryEscape(p.ClientID), url.QueryEscape(clientSecret.Expose()))
	}
}

// answer is what a token endpoint said. err is set where the body could not be read to its end, or is too large.
type answer struct {
	status int
	body   []byte
	err    error
}

// post sends the body once. Its error is Unsent where no byte of the request was written, else Unknown.
func (o *outbound) post(ctx context.Context, endpoint string, header http.Header, body string) (answer, error) {
	return o.send(ctx, http.MethodPost, endpoint, header, body)
}

// send is post with a method.
func (o *outbound) send(ctx context.Context, method, endpoint string, header http.Header, body string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	w := new(watch)
	req, err := http.NewRequestWithContext(w.trace(ctx), method, endpoint, strings.NewReader(body))
	if err != nil {
		return answer{}, &broker.UpstreamError{Kind: broker.Unsent, Err: errURL}
	}
	req.GetBody = nil // without it net/http cannot send the body again
	req.Header = header
	resp, err := o.connections().tokens.RoundTrip(req)
	if err != nil {
		kind := broker.Unknown
		if w.nothingSent() {
			kind = broker.Unsent
		}
		return answer{}, &broker.UpstreamError{Kind: kind, Err: cause(err)}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		a.err = cause(err)
	case len(a.body) > maxAnswer:
		a.err = errors.New("the answer is larger than 64 KiB")
	}
	return a, nil
}

// watch knows whether a request reached a connection.
type watch struct {
	conn  atomic.Pointer[meteredConn]
	start atomic.Int64 // bytes written to conn before the request: the TLS handshake
	blind atomic.Bool  // a connection that we cannot count on
}

func (w *watch) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		m := metered(info.Conn)
		if m == nil {
			w.blind.Store(true)
			return
		}
		w.start.Store(m.count())
		w.conn.Store(m)
	}})
}

// nothingSent reports whether no byte of the request was written, and makes sure that none will be.
func (w *watch) nothingSent() bool {
	if w.blind.Load() {
		return false
	}
	m := w.conn.Load()
	return m == nil || m.seal() == w.start.Load()
}
