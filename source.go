package tabard

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/oauth2"
)

const (
	// tokenSkew is how long before its end a kept token is asked for anew. Tabard releases none with less than a
	// minute left.
	tokenSkew = 30 * time.Second
	// tokenUnknown is how long a token is kept whose end the service does not tell (AWS).
	tokenUnknown = time.Minute
)

// TokenSource returns a source for golang.org/x/oauth2 and all that builds on it, such as Google's clients
// (option.WithTokenSource). It acts for the user in ctx, and ctx bounds its calls, as usual there: make one per
// request, and never share it between users. It keeps a token until shortly before its end.
//
// Against AWS, which tells no end, tokens from the source say that they end after a minute: caches on the way would
// else keep them for ever. The service is then asked anew and answers from its vault.
//
// A caller that is answered 401 says so with TokenSource.ReportInvalid; HTTPClient does that by itself.
func (c *Client) TokenSource(ctx context.Context, need OAuth2) *TokenSource {
	return c.source(ctx, need, nil)
}

// HTTPClient returns a client that presents the token of the user in ctx with each request. A client in
// ctx under oauth2.HTTPClient gives the base transport and the settings, as with oauth2.NewClient. It does what
// Transport does, keeps the token as TokenSource does, and refuses requests whose own context has another user
// (ErrMixedIdentity): one made for alice never books for bob. Requests end with their own context, not with ctx.
func (c *Client) HTTPClient(ctx context.Context, need OAuth2) *http.Client {
	return c.httpClient(c.source(ctx, need, nil))
}

func (c *Client) httpClient(s *TokenSource) *http.Client {
	var out http.Client
	if hc, ok := s.ctx.Value(oauth2.HTTPClient).(*http.Client); ok && hc != nil {
		out = *hc
	}
	out.Transport = &transport{need: s.need, base: out.Transport, fetch: s.forRequest}
	return &out
}

// TokenSource keeps one user's token for one declaration. It implements oauth2.TokenSource, and is safe for concurrent
// use.
type TokenSource struct {
	client *Client
	need   OAuth2
	ctx    context.Context // kept, against our habit, because oauth2.TokenSource.Token takes none

	turn  chan struct{} // has room for one: a lock that a cancelled caller stops waiting for; guards the rest
	token *Token
	until time.Time
}

// source begins with tok, which may be nil.
func (c *Client) source(ctx context.Context, need OAuth2, tok *Token) *TokenSource {
	s := &TokenSource{client: c, need: need, ctx: ctx, turn: make(chan struct{}, 1)}
	if tok != nil {
		s.keep(tok)
	}
	return s
}

// Token implements oauth2.TokenSource.
func (s *TokenSource) Token() (*oauth2.Token, error) {
	return s.oauth2(s.current(s.ctx, "", false))
}

// ReportInvalid is for a caller whom the provider answered 401 to a token of this source: it reports refused, as
// Client.ReportInvalid does, and returns the one to go on with. Where the source has another one by now it returns that
// and reports nothing. Errors are as Token's.
func (s *TokenSource) ReportInvalid(refused *oauth2.Token) (*oauth2.Token, error) {
	if refused == nil || refused.AccessToken == "" {
		return nil, invalid("%s: there is no token to report", s.need.Provider)
	}
	return s.oauth2(s.current(s.ctx, refused.AccessToken, true))
}

// Format prints the declaration's provider under every verb, and nothing of what the source holds.
func (s *TokenSource) Format(w fmt.State, _ rune) {
	if s == nil {
		_, _ = io.WriteString(w, "tabard.TokenSource(nil)")
		return
	}
	_, _ = fmt.Fprintf(w, "tabard.TokenSource(%s)", s.need.Provider)
}

func (s *TokenSource) oauth2(tok *Token, until time.Time, err error) (*oauth2.Token, error) {
	if err != nil {
		return nil, err
	}
	out := tok.OAuth2()
	if out.Expiry.IsZero() {
		out.Expiry = until
	}
	return out, nil
}

// current returns the kept token, or a new one if that is near its end or is the stale one, which a resource refused;
// with report the service is told so. One caller asks while the others wait, so that a user is prompted once.
func (s *TokenSource) current(ctx context.Context, stale string, report bool) (*Token, time.Time, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, time.Time{}, context.Cause(ctx)
	}
	defer func() { <-s.turn }()
	if s.token != nil && s.token.AccessToken != stale && s.client.now().Before(s.until) {
		return s.token, s.until, nil
	}
	ask := func() (*Token, error) { return s.client.Token(ctx, s.need) }
	if report && s.token != nil && s.token.AccessToken == stale {
		ask = func() (*Token, error) { return s.client.ReportInvalid(ctx, s.need, s.token) }
	}
	tok, err := ask()
	if err != nil {
		return nil, time.Time{}, err
	}
	s.keep(tok)
	return tok, s.until, nil
}

func (s *TokenSource) keep(tok *Token) {
	s.token, s.until = tok, tok.Expiry.Add(-tokenSkew)
	if tok.Expiry.IsZero() {
		s.until = s.client.now().Add(tokenUnknown)
	}
}

// forRequest is current for a request of the bound client: the source's user, the request's end.
func (s *TokenSource) forRequest(ctx context.Context, stale *Token, report bool) (*Token, error) {
	bound := valuesOf(s.ctx).who
	if who := valuesOf(ctx).who; who.kind != nobody && !who.equal(bound) {
		return nil, &Error{Code: ErrMixedIdentity, Message: s.need.Provider +
			": this HTTP client was made for another user than the one in the request's context"}
	}
	refused := ""
	if stale != nil {
		refused = stale.AccessToken
	}
	tok, _, err := s.current(Carry(ctx, s.ctx), refused, report)
	return tok, err
}
