package tabard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/oauth2"

	"github.com/tabard-id/tabard/internal/secret"
)

// Audience declares a service that takes tokens which Tabard itself signs: a service of one's own that trusts the
// Tabard server as its issuer. Its token says who the user is, by a name that is of use there only, and through which
// agents the request came. AWS has no such tokens.
type Audience struct {
	// Target is the service's name or URL, as it expects it in the claim aud.
	Target string
	// Scopes are what the token is to be good for there. The answer may have fewer: those that a policy allows.
	Scopes []string
	// Machine asks for a token of the agent itself. Without it the context must have a user.
	Machine bool
	// Hosts are where the token may be sent by AudienceClient, such as "reports.example.com". Empty: any host, over https.
	Hosts []string
}

// ExchangeToken returns a token for the audience and the user in ctx (RFC 8693). It lives ten minutes at most; to use
// it more than once take AudienceTokenSource. Errors are *Error, or wrap what ended ctx; ErrDenied where no policy
// allows it.
func (c *Client) ExchangeToken(ctx context.Context, a Audience) (*Token, error) {
	if a.Target == "" {
		return nil, invalid("Audience.Target is empty: a token is for one service")
	}
	who := valuesOf(ctx).who
	switch {
	case a.Machine && who.kind != nobody:
		return nil, invalid("%s: Audience.Machine contradicts the user in the context", a.Target)
	case !a.Machine && who.kind == nobody:
		return nil, &Error{Code: ErrNoIdentity, Message: a.Target + ": the context has no user: pass the request's context, or set one with WithUserToken, or Audience.Machine for the agent itself"}
	}
	var out *Token
	err := c.as(ctx, who, func(wat secret.Text) error {
		form := url.Values{"audience": {a.Target}}
		if len(a.Scopes) > 0 {
			form.Set("scope", strings.Join(a.Scopes, " "))
		}
		got, err := c.exchange(ctx, wat, form)
		if err != nil {
			return err
		}
		out = &Token{AccessToken: got.Token, Type: got.Type, Expiry: c.now().Add(time.Duration(got.Seconds) * time.Second), Scopes: strings.Fields(got.Scope)}
		return nil
	})
	return out, err
}

// AudienceTokenSource is ExchangeToken for golang.org/x/oauth2 and all that builds on it. It keeps the token until
// shortly before its end. It acts for the user in ctx, and ctx bounds its calls: make one per request, and never share
// it between users.
func (c *Client) AudienceTokenSource(ctx context.Context, a Audience) oauth2.TokenSource {
	a.Scopes = slices.Clone(a.Scopes)
	return oauth2.ReuseTokenSourceWithExpiry(nil, audienceSource{c, ctx, a}, tokenSkew)
}

// AudienceClient returns a client that presents the token with each request, to the audience's Hosts alone where it
// names any, over https or to loopback, and not along with a redirect to another host. A client in ctx under
// oauth2.HTTPClient gives the base transport and the settings.
func (c *Client) AudienceClient(ctx context.Context, a Audience) *http.Client {
	source := c.AudienceTokenSource(ctx, a)
	var out http.Client
	if hc, ok := ctx.Value(oauth2.HTTPClient).(*http.Client); ok && hc != nil {
		out = *hc
	}
	bound := valuesOf(ctx).who
	fetch := func(rctx context.Context, refused *Token, _ bool) (*Token, error) {
		if who := valuesOf(rctx).who; who.kind != nobody && !who.equal(bound) {
			return nil, &Error{Code: ErrMixedIdentity, Message: a.Target + ": this HTTP client was made for another user than the one in the request's context"}
		}
		if refused != nil { // the service turned it away: another one of the same kind will not help
			return refused, nil
		}
		t, err := source.Token()
		if err != nil {
			return nil, err
		}
		return &Token{AccessToken: t.AccessToken, Type: t.TokenType, Expiry: t.Expiry}, nil
	}
	out.Transport = &transport{need: OAuth2{Provider: a.Target, Hosts: a.Hosts}, base: out.Transport, fetch: fetch}
	return &out
}

// AcceptToken is for an agent that another agent called, handing its workload access token on (HeaderWAT): it exchanges
// that for one of this agent's own, for the same user, and returns ctx with it. From then on this agent acts as itself:
// with its own connections and its own policies, and the trail names both. A context without such a token is an error
// with ErrNoIdentity.
func (c *Client) AcceptToken(ctx context.Context) (context.Context, error) {
	who := valuesOf(ctx).who
	switch {
	case who.kind != byWAT:
		return nil, &Error{Code: ErrNoIdentity, Message: "the context has no workload access token of another agent: pass the request's context through Middleware"}
	case c.workload == "":
		return nil, invalid("Config.Workload is empty: a token can be accepted only for a named workload")
	}
	got, err := c.exchange(ctx, who.value, url.Values{"audience": {c.workload}, "requested_token_type": {workloadTokenType}})
	if err != nil {
		return nil, err
	}
	return WithWorkloadAccessToken(ctx, got.Token), nil
}

type audienceSource struct {
	client *Client
	ctx    context.Context // kept, against our habit, because oauth2.TokenSource.Token takes none
	a      Audience
}

// Token implements oauth2.TokenSource.
func (s audienceSource) Token() (*oauth2.Token, error) {
	t, err := s.client.ExchangeToken(s.ctx, s.a)
	if err != nil {
		return nil, err
	}
	return t.OAuth2(), nil
}

const (
	opExchange        = "ExchangeToken"
	workloadTokenType = "urn:tabard:params:oauth:token-type:workload-access-token"
)

// exchanged is RFC 8693 §2.2.1.
type exchanged struct {
	Token   string `json:"access_token"`
	Type    string `json:"token_type"`
	Seconds int64  `json:"expires_in"`
	Scope   string `json:"scope"`
}

// exchange posts the form to the token endpoint. Like ours it goes through the AWS client, so that endpoint,
// credentials, signing and retries are the same.
func (c *Client) exchange(ctx context.Context, subject secret.Text, form url.Values) (exchanged, error) {
	form.Set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
	form.Set("subject_token", subject.Expose())
	form.Set("subject_token_type", workloadTokenType)
	var got exchanged
	_, err := c.api.GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("-")}, quiet,
		func(o *bedrockagentcore.Options) { o.APIOptions = append(o.APIOptions, postForm(form.Encode(), &got)) })
	if err != nil {
		return exchanged{}, failure(ctx, opExchange, err)
	}
	if got.Token == "" {
		return exchanged{}, &Error{Code: ErrInternal, Op: opExchange, Message: "the answer has no token"}
	}
	return got, nil
}

// postForm sends a form in place of what was serialized, and reads OAuth's answer. An error of OAuth's (RFC 6749
// section 5.2) is put into the form that the AWS client reads.
func postForm(form string, got *exchanged) func(*middleware.Stack) error {
	send := middleware.SerializeMiddlewareFunc("TabardForm", func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (
		middleware.SerializeOutput, middleware.Metadata, error) {
		req, ok := in.Request.(*smithyhttp.Request)
		if !ok {
			return middleware.SerializeOutput{}, middleware.Metadata{}, errors.New("tabard: a request of another transport")
		}
		req.URL.Path, req.URL.RawPath = "/oauth2/token", ""
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req, err := req.SetStream(strings.NewReader(form))
		if err != nil {
			return middleware.SerializeOutput{}, middleware.Metadata{}, err
		}
		in.Request = req
		return next.HandleSerialize(ctx, in)
	})
	read := middleware.DeserializeMiddlewareFunc("TabardIssued", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
		middleware.DeserializeOutput, middleware.Metadata, error) {
		out, meta, err := next.HandleDeserialize(ctx, in)
		resp, ok := out.RawResponse.(*smithyhttp.Response)
		if err != nil || !ok {
			return out, meta, err
		}
		raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return out, meta, &smithyhttp.RequestSendError{Err: err}
		}
		var flaw struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		body := []byte("{}")
		switch {
		case resp.StatusCode >= 200 && resp.StatusCode <= 299:
			_ = json.Unmarshal(raw, got) // what is missing then says so
		case json.Unmarshal(raw, &flaw) == nil && flaw.Error != "":
			body, _ = json.Marshal(map[string]string{"message": flaw.Error + ": " + flaw.Description}) // strings always marshal
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(body), resp.Body}
		return out, meta, nil
	})
	return func(stack *middleware.Stack) error {
		return errors.Join(stack.Serialize.Add(send, middleware.After), stack.Deserialize.Add(read, middleware.After))
	}
}
