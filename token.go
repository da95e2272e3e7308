package tabard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
	"golang.org/x/oauth2"

	"github.com/tabard-id/tabard/internal/secret"
)

// mask stands for every credential that is printed.
const mask = "[secret]"

// errMarshal: a token that marshals ends in a tool's result and from there in a model's context.
var errMarshal = errors.New("tabard: credentials do not marshal; take the value out by name")

// Token is an access token of a provider. Printing and logging it masks the token; marshaling it fails. Keep it as the
// pointer that you get: in an unexported field, by value, no method of ours is asked when the struct around is printed.
type Token struct {
	// AccessToken is the token itself.
	AccessToken string
	// Type is how it is presented; "Bearer" if the service did not say.
	Type string
	// Expiry is when it ends. Zero: not told; AWS never tells.
	Expiry time.Time
	// Scopes are those granted, which may be fewer than asked for. Nil: not told; AWS never tells.
	Scopes []string
	// ConnectionID and ConnectionState name the stored grant behind the token. Empty: not told.
	ConnectionID    string
	ConnectionState string
}

// OAuth2 returns the token as golang.org/x/oauth2 has it. A zero Expiry stays zero, which that package takes for
// "never expires"; where the token is kept, use Client.TokenSource.
func (t *Token) OAuth2() *oauth2.Token {
	out := &oauth2.Token{AccessToken: t.AccessToken, TokenType: t.Type, Expiry: t.Expiry}
	return out.WithExtra(map[string]any{"scope": slices.Clone(t.Scopes)})
}

// SetAuthHeader sets the Authorization header of r.
func (t *Token) SetAuthHeader(r *http.Request) {
	r.Header.Set("Authorization", t.OAuth2().Type()+" "+t.AccessToken)
}

// HasScope reports whether scope was granted. It is false where the service did not tell the scopes.
func (t *Token) HasScope(scope string) bool { return slices.Contains(t.Scopes, scope) }

// Format prints the token without its value, under every verb.
func (t Token) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, "tabard.Token("+mask+")")
}

// LogValue is the token in log/slog, without its value.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("token", mask), slog.Time("expiry", t.Expiry), slog.Any("scopes", t.Scopes))
}

// MarshalJSON always fails.
func (t Token) MarshalJSON() ([]byte, error) { return nil, errMarshal }

// Token returns a token for the declaration and the user in ctx. The service keeps tokens and refreshes them, so each
// call asks it; to save calls in a loop use TokenSource.
//
// If the user has not consented yet, it calls the consent handler and waits (Config.OnConsent, WithConsentHandler);
// without one it returns *ConsentRequiredError. Calls at the same time for the same user and declaration share one
// prompt. Other errors are *Error, or wrap what ended ctx.
func (c *Client) Token(ctx context.Context, need OAuth2) (*Token, error) {
	return c.obtain(ctx, need, false)
}

// Reconsent asks the user again although a token may be stored, for instance to connect another account. It is an act
// and not part of a declaration: repeated on every call it would prompt the user each time. A token that is stored
// keeps working until the new consent is given. It answers as Token does.
func (c *Client) Reconsent(ctx context.Context, need OAuth2) (*Token, error) {
	if need.flow() != UserFederation {
		return nil, invalid("%s: only the flow UserFederation has a consent", need.Provider)
	}
	return c.obtain(ctx, need, true)
}

const opToken = "GetResourceOauth2Token"

// ask makes one request: a first one, or with session a look at a consent that is under way.
func (c *Client) ask(ctx context.Context, need OAuth2, session string, force bool) (*Token, error) {
	if err := need.Validate(); err != nil {
		return nil, err
	}
	v := valuesOf(ctx)
	if v.who.kind == nobody && need.flow() != M2M {
		return nil, noUser(need)
	}
	in := need.input(v, c.returnURL)
	if session != "" {
		in.SessionUri = aws.String(session)
	} else if force {
		in.ForceAuthentication = aws.Bool(true)
	}
	var out *bedrockagentcore.GetResourceOauth2TokenOutput
	err := c.as(ctx, v.who, func(wat secret.Text) error {
		in.WorkloadIdentityToken = aws.String(wat.Expose())
		var err error
		out, err = c.api.GetResourceOauth2Token(ctx, in, quiet)
		return failure(ctx, opToken, err)
	})
	if err != nil {
		return nil, err
	}
	return answer(need, session, out)
}

func noUser(need OAuth2) *Error {
	return &Error{Code: ErrNoIdentity, Message: need.Provider + ": the context has no user: pass the request's context, or set one with WithUserToken"}
}

// answer reads the three shapes of a 200: a token, a consent to ask for, a consent that failed.
func answer(need OAuth2, session string, out *bedrockagentcore.GetResourceOauth2TokenOutput) (*Token, error) {
	if token := aws.ToString(out.AccessToken); token != "" {
		more := extrasOf(out.ResultMetadata)
		if more.tokenType == "" {
			more.tokenType = "Bearer"
		}
		return &Token{AccessToken: token, Type: more.tokenType, Expiry: more.expiry, Scopes: more.scopes,
			ConnectionID: more.id, ConnectionState: more.state}, nil
	}
	consent := Consent{Provider: need.Provider, Scopes: slices.Clone(need.Scopes),
		URL: aws.ToString(out.AuthorizationUrl), SessionURI: aws.ToString(out.SessionUri),
		ConnectionState: extrasOf(out.ResultMetadata).state}
	if consent.SessionURI == "" {
		consent.SessionURI = session
	}
	switch {
	case out.SessionStatus == types.SessionStatusFailed:
		return nil, &Error{Code: ErrConsentFailed, Op: opToken, Message: need.Provider + ": the consent failed"}
	case consent.URL != "" || session != "":
		return nil, &ConsentRequiredError{Consent: consent}
	}
	return nil, &Error{Code: ErrInternal, Op: opToken, Message: "the answer has neither a token nor an authorization URL"}
}

func (d OAuth2) input(v values, fallback string) *bedrockagentcore.GetResourceOauth2TokenInput {
	in := &bedrockagentcore.GetResourceOauth2TokenInput{
		ResourceCredentialProviderName: aws.String(d.Provider),
		Oauth2Flow:                     types.Oauth2FlowType(d.flow()),
		Scopes:                         d.Scopes,
		Resources:                      d.Resources,
		Audiences:                      d.Audiences,
		CustomParameters:               d.CustomParameters,
	}
	if in.Scopes == nil {
		in.Scopes = []string{} // required on the wire, and may be empty
	}
	if d.flow() != UserFederation {
		return in
	}
	for _, url := range []string{d.ReturnURL, v.returnURL, fallback} {
		if url != "" {
			in.ResourceOauth2ReturnUrl = aws.String(url)
			break
		}
	}
	if !v.state.IsZero() {
		in.CustomState = aws.String(v.state.Expose())
	}
	return in
}
