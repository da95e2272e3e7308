package tabard

import (
	"context"
	"crypto/sha256"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/tabard-id/tabard/internal/secret"
)

// The headers in which AgentCore Runtime, or a sidecar in its place, hands an agent its identity.
const (
	// HeaderWAT carries the workload access token from agent to agent; it is looked at first.
	HeaderWAT = "X-Amz-Bedrock-AgentCore-Identity-WAT"
	// HeaderWorkloadAccessToken carries the workload access token from the runtime.
	HeaderWorkloadAccessToken = "WorkloadAccessToken"
	// HeaderReturnURL carries the URL that the user's browser goes to after consent.
	HeaderReturnURL = "OAuth2CallbackUrl"
)

// User names the person an agent acts for: by the token from the person's own login, or by an id that the application
// vouches for. The zero User is nobody. Printing it shows nothing.
type User struct{ who identity }

// UserToken is the user whom jwt, a token of their identity provider, names.
func UserToken(jwt string) User { return User{identity{byUserToken, secret.New(jwt)}} }

// UserID is the user with an id that the calling application asserts; nothing verifies it.
func UserID(id string) User { return User{identity{byUserID, secret.New(id)}} }

// IsZero reports whether u names nobody.
func (u User) IsZero() bool { return u.who.value.IsZero() }

// WithUserToken returns a context in which the agent acts for the user of jwt. It replaces any identity in ctx: the
// kinds never mix. Nothing is verified here; the service does that when a token is first asked for.
func WithUserToken(ctx context.Context, jwt string) context.Context {
	return withIdentity(ctx, UserToken(jwt).who)
}

// WithUserID returns a context in which the agent acts for a user that the application vouches for. The service
// must allow the agent that; prefer WithUserToken. It replaces any identity in ctx.
func WithUserID(ctx context.Context, id string) context.Context {
	return withIdentity(ctx, UserID(id).who)
}

// WithWorkloadAccessToken returns a context that uses a workload access token minted elsewhere (by AgentCore Runtime,
// a sidecar, or the agent that called). It cannot be renewed here. It replaces any identity in ctx.
func WithWorkloadAccessToken(ctx context.Context, wat string) context.Context {
	return withIdentity(ctx, identity{byWAT, secret.New(wat)})
}

// WithReturnURL returns a context whose consents send the browser to url, unless the declaration names another.
func WithReturnURL(ctx context.Context, url string) context.Context {
	return with(ctx, func(v *values) { v.returnURL = url })
}

// WithCustomState returns a context whose consents give state back to the return URL, in the query parameter state.
// The web app compares it there with what it remembers of the browser's session (RFC 6749 section 10.12).
func WithCustomState(ctx context.Context, state string) context.Context {
	return with(ctx, func(v *values) { v.state = secret.New(state) })
}

// WithConsentHandler returns a context in which h is told about needed consents instead of Config.OnConsent. A nil h
// makes calls return *ConsentRequiredError even if the client has a handler.
func WithConsentHandler(ctx context.Context, h ConsentHandler) context.Context {
	return with(ctx, func(v *values) { v.onConsent, v.consentSet = h, true })
}

// Carry returns to with everything that this package put into from, and with nothing else of it. It is for work
// that outlives a request: Carry(context.Background(), r.Context()) has the user and not the request's end.
func Carry(to, from context.Context) context.Context {
	v, ok := from.Value(valuesKey{}).(*values)
	if !ok {
		return to
	}
	return context.WithValue(to, valuesKey{}, v)
}

// FromHeader returns ctx with the identity that a request's header carries: the workload access token if there is one
// (HeaderWAT, then HeaderWorkloadAccessToken), else the bearer token of Authorization as the user's; and the return
// URL of HeaderReturnURL. An identity in ctx stays only if the header has none. It does not know who sent the header:
// whoever has found another agent's token could send it. Middleware looks at that; use this only where something else
// has.
func FromHeader(ctx context.Context, h http.Header) context.Context {
	if url := h.Get(HeaderReturnURL); url != "" {
		ctx = WithReturnURL(ctx, url)
	}
	if wat := h.Get(HeaderWAT); wat != "" {
		return WithWorkloadAccessToken(ctx, wat)
	}
	if wat := h.Get(HeaderWorkloadAccessToken); wat != "" {
		return WithWorkloadAccessToken(ctx, wat)
	}
	// RFC 9110 section 11.1: the scheme is case-insensitive.
	scheme, token, ok := strings.Cut(h.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); ok && strings.EqualFold(scheme, "Bearer") && token != "" {
		return WithUserToken(ctx, token)
	}
	return ctx
}

// Middleware puts the identity of each request (see FromHeader) into its context, for any net/http server. It takes a
// workload access token (HeaderWAT, HeaderWorkloadAccessToken) only from an authenticated peer or on loopback: one
// whose client certificate the server verified, one that Config.TrustsPeer vouches for, or one on this machine, such as
// a sidecar. From anybody else it would be whatever token somebody has found, so such a request is answered 403 and
// goes no further. A proxy on this machine that passes on requests of others must remove the two headers, as tabard
// sidecar does.
//
// It authenticates no user: the service judges the token when a credential is first asked for, so an agent that does
// something before that must check the token itself. Requests without an identity pass; what needs one then fails with
// ErrNoIdentity. The identity is in the context and so in every goroutine that gets it; for work that outlives the
// request see Carry.
func (c *Client) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{HeaderWAT, HeaderWorkloadAccessToken} {
			if len(r.Header.Values(name)) > 0 && !c.knows(r) {
				w.Header().Set("Cache-Control", "no-store")
				http.Error(w, "the header "+name+" is taken only from an authenticated peer or on loopback: verify client certificates"+
					" (tls.RequireAndVerifyClientCert), or say by tabard.Config.TrustsPeer who was authenticated otherwise", http.StatusForbidden)
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(FromHeader(r.Context(), r.Header)))
	})
}

// knows reports whether a request is of a peer that may hand on a workload access token (threat M07).
func (c *Client) knows(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return true
	}
	return onLoopback(r) || c.trusts != nil && c.trusts(r)
}

// onLoopback reports whether a request came over loopback. Middleware that believes X-Forwarded-For writes what a
// client says into RemoteAddr: so where the server tells at which of its addresses the request came in, that counts
// too.
func onLoopback(r *http.Request) bool {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !at.Addr().Unmap().IsLoopback() {
		return false
	}
	to, told := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !told {
		return true
	}
	at, err = netip.ParseAddrPort(to.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

type kind int

const (
	nobody kind = iota
	byUserToken
	byUserID
	byWAT
	byDelegation
)

// identity is on whose behalf a call is made. Also a user's id is a secret.Text: who talks to an agent is nobody
// else's business.
type identity struct {
	kind  kind
	value secret.Text
}

func (i identity) equal(j identity) bool { return i.kind == j.kind && i.value.Equal(j.value) }

// cacheKey names an identity without holding it.
type cacheKey struct {
	kind kind
	sum  [sha256.Size]byte
}

func (i identity) key() cacheKey {
	return cacheKey{i.kind, sha256.Sum256([]byte(i.value.Expose()))}
}

// values is all that this package keeps in a context, behind a pointer: %#v of a context then prints an address.
// It is never changed once it is in a context.
type values struct {
	who        identity
	returnURL  string
	state      secret.Text
	onConsent  ConsentHandler
	consentSet bool
}

type valuesKey struct{}

func valuesOf(ctx context.Context) values {
	if v, ok := ctx.Value(valuesKey{}).(*values); ok {
		return *v
	}
	return values{}
}

func with(ctx context.Context, change func(*values)) context.Context {
	v := valuesOf(ctx)
	change(&v)
	return context.WithValue(ctx, valuesKey{}, &v)
}

func withIdentity(ctx context.Context, who identity) context.Context {
	if who.value.IsZero() {
		who = identity{}
	}
	return with(ctx, func(v *values) { v.who = who })
}
