package broker

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/url"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Hosted consent: for an agent without a web application, this server does what the application would do. It signs the
// user in with the issuer's login client, asks the user, and confirms that the browser at the end is the browser of
// that user. The order is fixed: sign-in, the user's yes, the visit at the provider, completion.

// Login is one sign-in of a browser for a hosted flow.
type Login struct {
	State    string // SHA-256 of the state parameter, hexadecimal: primary key
	Flow     string // id of the flow
	Cookie   string // SHA-256 of the cookie of the sign-in, hexadecimal
	Verifier vault.Sealed
	IssSent  bool // the issuer's metadata promises iss (RFC 9207 §3)
	Spent    bool
	Session  string // SHA-256 of the hosted session's cookie, "" before the user is known to be the flow's
	Allowed  bool   // the user said yes in this session
	Created  time.Time
}

// HostedStore keeps sign-ins. They go with their flow.
type HostedStore interface {
	// AddLogin stores a sign-in where the flow is created or code_held, else returns Conflict; and returns Limit where
	// the flow has max sign-ins.
	AddLogin(ctx context.Context, l Login, max int) error
	// SpendLogin is to sign-ins what SpendVisit is to visits.
	SpendLogin(ctx context.Context, state, cookie string) (Login, error)
	// OpenHosted gives a spent sign-in its session, once, and erases its verifier.
	OpenHosted(ctx context.Context, state, session string) error
	// HostedSession finds a sign-in of the flow by its session, or returns NotFound.
	HostedSession(ctx context.Context, flow, session string) (Login, error)
	// BindHosted replaces the session old by session and marks it as allowed, or returns Conflict.
	BindHosted(ctx context.Context, flow, old, session string) error
}

// LoginUpstream signs users in at their issuer, through the guarded dialer.
type LoginUpstream interface {
	// SignInURL builds the address at the issuer. issSent says that the answer will name the issuer.
	SignInURL(ctx context.Context, c identity.LoginClient, r SignInRequest) (to string, issSent bool, err error)
	// SignInToken exchanges the code for the ID token, which it does not verify. Failures are *UpstreamError or faults.
	SignInToken(ctx context.Context, c identity.LoginClient, clientSecret secret.Text, r CodeGrant) (idToken secret.Text, err error)
}

// SignInRequest is what goes into an authentication request (OpenID Connect Core §3.1.2.1).
type SignInRequest struct {
	RedirectURI string
	State       secret.Text
	Verifier    secret.Text
	Nonce       string
}

// Endings of hosted consent.
const (
	EndWrongUser Ending = "wrong_user"    // the browser's user is not the user who began
	EndNotSigned Ending = "not_signed_in" // the issuer sent the user back without a sign-in, or there is no session
)

// HostedPrefix is the path below which hosted consent lies.
const HostedPrefix = "/identities/hosted/"

// HostedReturnURL is what an agent gives as return URL to ask for hosted consent.
func (b *Broker) HostedReturnURL() string { return b.publicURL + HostedPrefix + "done" }

// LoginRedirectURI is what the login client of an issuer must have registered. Each issuer of each account has its own,
// so that what one of them answers is never taken for the answer of another (RFC 9700 §4.4.2, threat M01). It is known
// before the issuer has a login client.
func (b *Broker) LoginRedirectURI(account access.Account, issuer string) string {
	return b.publicURL + HostedPrefix + "callback/" + loginCallback(account, issuer)
}

func loginCallback(account access.Account, issuer string) string {
	return uuidV5("urn:tabard:issuer-login:" + string(account) + ":" + issuer)
}

func (b *Broker) hosted(f Flow) bool { return f.ReturnURL == b.HostedReturnURL() }

// checkHosted says whether hosted consent can be had for the user.
func (b *Broker) checkHosted(ctx context.Context, g grounds) error {
	const field = "resourceOauth2ReturnUrl"
	if g.token.User.Kind != identity.JWTUser {
		return fault.Field(field, "hosted consent signs the user in, so it needs a user known by a token: mint the workload access token with GetWorkloadAccessTokenForJWT")
	}
	if b.login == nil {
		return fault.Field(field, "hosted consent is not offered by this server")
	}
	_, _, err := b.identity.Login(ctx, g.caller.Account, g.workload.Name, g.token.User.Issuer)
	if errors.Is(err, fault.NotFound) {
		return fault.Field(field, "hosted consent is not set up for the issuer %s: an administrator gives it a login client with SetIssuerLogin", clean(g.token.User.Issuer, 200))
	}
	return err
}

// loginNonce is bound to the browser: who cannot show the cookie cannot name the nonce (OpenID Connect Core §15.5.2).
func loginNonce(cookie secret.Text) string { return digest("hosted-nonce-1", cookie.Expose()) }

// LoginCookieName names the cookie of the sign-in with this state.
func LoginCookieName(state secret.Text) string { return "tabard-login-" + hashText(state)[:16] }

// HostedCookieName names the cookie of a hosted session. Each consent session has its own.
func HostedCookieName(session string) string {
	return "tabard-hosted-" + digest("session-1", session)[:16]
}

// signIn begins a sign-in. It changes nothing but that the sign-in is awaited.
func (b *Broker) signIn(ctx context.Context, flow Flow) (VisitURL, error) {
	client, _, err := b.loginClient(ctx, flow)
	if err != nil {
		return VisitURL{}, err
	}
	state, cookie, verifier := secret.New(random(32)), secret.New(random(32)), secret.New(random(32))
	l := Login{State: hashText(state), Flow: flow.ID, Cookie: hashText(cookie), Created: b.now()}
	if l.Verifier, err = b.vault.Seal(ctx, loginRef(flow, l.State), verifier); err != nil {
		return VisitURL{}, err
	}
	var to string
	to, l.IssSent, err = b.login.SignInURL(ctx, client, SignInRequest{RedirectURI: b.LoginRedirectURI(flow.Account, client.Issuer), State: state, Verifier: verifier, Nonce: loginNonce(cookie)})
	if err != nil {
		return VisitURL{}, b.unlessMoved(ctx, flow, err)
	}
	switch err := b.store.AddLogin(ctx, l, maxVisits); fault.CodeOf(err) {
	case "":
	case fault.Conflict:
		return VisitURL{}, errGiven
	case fault.Limit:
		return VisitURL{}, ending(EndFailed, "the link was opened too often", "it was opened too often")
	default:
		return VisitURL{}, err
	}
	return VisitURL{URL: secret.New(to), Cookie: cookie, Name: LoginCookieName(state), MaxAge: flow.Expires.Sub(b.now())}, nil
}

func loginRef(f Flow, state string) vault.Ref {
	r := f.ref("verifier")
	r.Table, r.Key = "hosted_logins", state
	return r
}

// loginClient finds the client to sign the flow's user in with.
func (b *Broker) loginClient(ctx context.Context, flow Flow) (identity.LoginClient, secret.Text, error) {
	user, err := b.identity.UserByRef(ctx, flow.Account, flow.User)
	if err != nil {
		return identity.LoginClient{}, secret.Text{}, err
	}
	c, clientSecret, err := b.identity.Login(ctx, flow.Account, flow.WorkloadName, user.Issuer)
	if b.login == nil || errors.Is(err, fault.NotFound) {
		err = ending(EndFailed, "sign-in is not set up for your identity provider any more", "its issuer has no login client any more")
	}
	return c, clientSecret, err
}

// SignedIn takes the issuer's answer to a sign-in. Where the user who signed in is the flow's, it returns the address
// of the consent page and a new session for it; where it is another, the flow ends with nothing redeemed (threat C01).
// An issuer's refusal to sign somebody in ends nothing: it says nothing about who that was.
func (b *Broker) SignedIn(ctx context.Context, a Answer) (VisitURL, error) {
	l, err := b.store.SpendLogin(ctx, hashText(a.State), hashText(a.Cookie))
	switch fault.CodeOf(err) {
	case "":
	case fault.NotFound:
		return VisitURL{}, errNoSession
	case fault.Denied:
		return VisitURL{}, ending(EndOtherBrowser, "", "the sign-in came to a browser that did not begin it")
	case fault.Conflict:
		return VisitURL{}, ending(EndUsed, "", "this sign-in was already taken")
	default:
		return VisitURL{}, err
	}
	flow, _, _, err := b.openFlow(ctx, l.Flow)
	if err != nil {
		return VisitURL{}, err
	}
	client, clientSecret, err := b.loginClient(ctx, flow)
	if err != nil {
		return VisitURL{}, err
	}
	if why := a.mixedUp("issuer", loginCallback(flow.Account, client.Issuer), client.Issuer, l.IssSent); why != "" {
		if err := b.flowEvent(ctx, access.Caller{}, flow, access.Callback, "refused", why).Wait(ctx); err != nil {
			return VisitURL{}, err
		}
		return VisitURL{}, ending(EndMixedUp, why, "%s", why)
	}
	if a.Error != "" || a.Code.IsZero() {
		return VisitURL{}, ending(EndNotSigned, clean(a.words(), 200), "the user did not sign in")
	}
	verifier, err := b.vault.Open(ctx, loginRef(flow, l.State), l.Verifier)
	if err != nil {
		return VisitURL{}, err
	}
	token, err := b.login.SignInToken(ctx, client, clientSecret, CodeGrant{Code: a.Code, Verifier: verifier, RedirectURI: b.LoginRedirectURI(flow.Account, client.Issuer)})
	if err != nil {
		return VisitURL{}, b.unlessMoved(ctx, flow, signInFault(client, err))
	}
	who, err := b.identity.VerifyLogin(ctx, client, flow.WorkloadName, token, loginNonce(a.Cookie))
	if err != nil {
		if errors.Is(err, fault.Unauthenticated) {
			err = ending(EndNotSigned, fault.Public(err).Msg, "the sign-in cannot be used: %s", fault.Public(err).Msg)
		}
		return VisitURL{}, err
	}
	if err := b.sameUser(ctx, flow, who.User); err != nil {
		return VisitURL{}, err
	}
	return b.openHosted(ctx, flow, l)
}

func signInFault(c identity.LoginClient, err error) error {
	if up, ok := errors.AsType[*UpstreamError](err); ok {
		return fault.Wrap(fault.Unavailable, err, "the sign-in at %s did not succeed%s", c.Issuer, up.said())
	}
	return err
}

// sameUser ends the flow unless who is its user.
func (b *Broker) sameUser(ctx context.Context, flow Flow, who identity.User) error {
	ref, err := b.identity.UserRef(ctx, flow.Account, who)
	if err != nil || subtle.ConstantTimeCompare([]byte(ref), []byte(flow.User)) == 1 {
		return err
	}
	const why = "the user who signed in is not the user who began it"
	if _, err := b.store.FailFlow(ctx, flow.ID, why, 0); err != nil {
		return err
	}
	return b.guard.Refuse(ctx, access.Caller{Account: flow.Account}, access.CompleteResourceTokenAuth, "hosted-wrong-user",
		flow.facts("wrong_user", "signed in as "+ref), ending(EndWrongUser, "", why))
}

// openHosted begins the session of a browser whose user is the flow's.
func (b *Broker) openHosted(ctx context.Context, flow Flow, l Login) (VisitURL, error) {
	cookie := secret.New(random(32))
	if err := b.store.OpenHosted(ctx, l.State, hashText(cookie)); err != nil {
		return VisitURL{}, err
	}
	if err := b.flowEvent(ctx, access.Caller{}, flow, access.Authorize, "signed_in", "").Wait(ctx); err != nil {
		return VisitURL{}, err
	}
	session, err := b.vault.Open(ctx, flow.ref("session"), flow.Session)
	if err != nil {
		return VisitURL{}, err
	}
	return VisitURL{URL: b.pending(session.Expose()).AuthorizationURL, Cookie: cookie, Name: HostedCookieName(session.Expose()), MaxAge: flow.Expires.Sub(b.now())}, nil
}

// HostedView is what the consent page shows. Every text is foreign to the reader of the page.
type HostedView struct {
	Agent    string
	Account  string
	Provider string
	Host     string // where the provider asks for the user's consent
	User     string // as the issuer names the user
	Issuer   string
	Scopes   []string
	Held     bool // the provider's answer is here: only the last step is missing
}

// Hosted returns what the page of a signed-in browser shows, or an *EndError with EndNotSigned where the cookie is no
// session of it. It changes nothing (threat C33).
func (b *Broker) Hosted(ctx context.Context, session string, cookie secret.Text) (HostedView, error) {
	flow, provider, _, _, err := b.hostedFlow(ctx, session, cookie)
	if err != nil {
		return HostedView{}, err
	}
	user, err := b.identity.UserByRef(ctx, flow.Account, flow.User)
	if err != nil {
		return HostedView{}, err
	}
	endpoints, err := b.browserEndpoints(ctx, flow, provider)
	if err != nil {
		return HostedView{}, err
	}
	v := HostedView{
		Agent: flow.WorkloadName, Account: string(flow.Account), Provider: flow.ProviderName, User: user.Subject, Issuer: user.Issuer,
		Scopes: flow.Scopes, Held: flow.State == FlowCodeHeld,
	}
	if u, err := url.Parse(endpoints.Authorization); err == nil {
		v.Host = u.Host
	}
	return v, nil
}

// hostedFlow reads a hosted flow for a browser that is signed in for it.
func (b *Broker) hostedFlow(ctx context.Context, session string, cookie secret.Text) (Flow, Provider, Vendor, Login, error) {
	flow, provider, vendor, err := b.openFlow(ctx, digest("session-1", session))
	if err != nil {
		return flow, provider, vendor, Login{}, err
	}
	notSigned := ending(EndNotSigned, "", "this browser is not signed in for it")
	if !b.hosted(flow) || cookie.IsZero() {
		return flow, provider, vendor, Login{}, notSigned
	}
	l, err := b.store.HostedSession(ctx, flow.ID, hashText(cookie))
	if errors.Is(err, fault.NotFound) {
		err = notSigned
	}
	if err == nil && flow.State != FlowCreated && flow.State != FlowCodeHeld {
		err = errGiven
	}
	return flow, provider, vendor, l, err
}

// AllowHosted takes the user's yes: it renews the browser's session, whose new cookie it returns (threat C23), and
// begins the visit at the provider. The caller has made sure that the user's own page sent it (threat C22).
func (b *Broker) AllowHosted(ctx context.Context, session string, cookie secret.Text) (visit VisitURL, renewed secret.Text, err error) {
	flow, provider, vendor, _, err := b.hostedFlow(ctx, session, cookie)
	if err != nil {
		return VisitURL{}, renewed, err
	}
	if flow.State != FlowCreated {
		return VisitURL{}, renewed, errGiven
	}
	if visit, err = b.visit(ctx, flow, provider, vendor); err != nil {
		return VisitURL{}, renewed, err
	}
	renewed = secret.New(random(32))
	if err := b.store.BindHosted(ctx, flow.ID, hashText(cookie), hashText(renewed)); err != nil {
		return VisitURL{}, secret.Text{}, err
	}
	return visit, renewed, nil
}

// DenyHosted takes the user's no: the flow ends, and the agent's next poll says so. It returns nil when that is done.
func (b *Broker) DenyHosted(ctx context.Context, session string, cookie secret.Text) error {
	flow, _, _, _, err := b.hostedFlow(ctx, session, cookie)
	if err != nil {
		return err
	}
	const why = "consent was declined by the user (access_denied)"
	if _, err := b.store.FailFlow(ctx, flow.ID, why, 0); err != nil {
		return err
	}
	return b.flowEvent(ctx, access.Caller{}, flow, access.CompleteResourceTokenAuth, "declined", why).Wait(ctx)
}

// CompleteHosted redeems the held code of a hosted flow in the browser whose user signed in and said yes. Unavailable
// means that the provider refused before it looked at the code: the page offers the last step again.
func (b *Broker) CompleteHosted(ctx context.Context, session string, cookie secret.Text) error {
	flow, _, _, l, err := b.hostedFlow(ctx, session, cookie)
	if err != nil {
		return err
	}
	caller := access.Caller{Account: flow.Account}
	if !l.Allowed {
		return b.guard.Refuse(ctx, caller, access.CompleteResourceTokenAuth, "hosted-not-allowed", flow.facts("refused", ""),
			ending(EndNotSigned, "", "the user of this browser has not said yes"))
	}
	if err := b.flowEvent(ctx, caller, flow, access.CompleteResourceTokenAuth, "complete", "hosted").Wait(ctx); err != nil {
		return err
	}
	return b.finish(ctx, caller, flow)
}

// HostedSession returns the session in an address that Callback returned, where it is that of hosted consent.
func (b *Broker) HostedSession(to secret.Text) (string, bool) {
	u, err := url.Parse(to.Expose())
	if err != nil {
		return "", false
	}
	session := u.Query().Get("session_id")
	u.RawQuery = ""
	return session, u.String() == b.HostedReturnURL() && session != ""
}
