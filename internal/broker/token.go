package broker

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// Request asks for a provider's token.
type Request struct {
	Token            secret.Text // the workload access token
	Provider         string
	Flow             string
	Scopes           []string
	Session          string // polls the session opened by an earlier call
	ReturnURL        string
	Force            bool // start a new consent even if a token is stored
	CustomParameters map[string]secret.Text
	CustomState      secret.Text
	Resources        []string
	Audiences        []string

	resource       string   // that the scopes name, at a vendor with Resources
	parameters     string   // as the connection's
	parameterNames []string // as the connection's
}

// Outcome is the ordinary answer: either a token, or the session in which the user has yet to consent.
type Outcome struct {
	AccessToken secret.Text
	TokenType   string
	Expires     time.Time // zero where the provider did not say
	Granted     []string
	State       ConnectionState
	Connection  string
	Attributes  map[string]string // what the vendor answered beside the token; nil where nothing

	AuthorizationURL secret.Text // set while consent is needed
	Session          string
}

// grounds is what a request stands on: who asks, as which agent, for whom, at which provider.
type grounds struct {
	caller   access.Caller
	token    identity.Token
	workload identity.Workload
	provider Provider
	vendor   Vendor
	facts    access.Facts
	bounds   bounds // of the delegation that the token was minted under
	counted  bool   // a ceiling has counted what this request asks for
}

// Token releases the provider's token that the workload access token entitles its bearer to, refreshing or fetching
// it where needed, or opens a consent session.
//
// Errors: Unauthenticated for a bad or expired workload access token; Denied where the caller is not paired with the
// workload identity, and for a session that is unknown, foreign, expired, declined or failed; NotFound for an unknown
// provider; Invalid for the request; Unavailable where the provider, the key service or the trail cannot be had.
func (b *Broker) Token(ctx context.Context, caller access.Caller, r Request) (Outcome, error) {
	g, err := b.ground(ctx, caller, r)
	if err != nil {
		return Outcome{}, err
	}
	r.foldAudience()
	r.foldUserScopes(g.vendor)
	g.facts.Parameters = r.spelled()
	if err := r.checkWidening(g.provider); err != nil {
		return Outcome{}, b.unlessDenied(ctx, g, err)
	}
	if err := b.nameParameters(ctx, caller.Account, &r, g.provider, g.vendor); err != nil {
		return Outcome{}, err
	}
	if r.Session != "" {
		return b.poll(ctx, g, r)
	}
	if r.resource, err = g.vendor.resourceOf(g.provider.Name, r.Scopes); err != nil {
		return Outcome{}, b.unlessDenied(ctx, g, err)
	}
	switch r.Flow {
	case FlowM2M:
		return b.machineToken(ctx, g, r)
	case FlowUserFederation:
		return b.userToken(ctx, g, r)
	case FlowOnBehalfOf:
		return b.exchangedToken(ctx, g, r)
	}
	return Outcome{}, b.unlessDenied(ctx, g, fault.Field("oauth2Flow", "%s is not a flow: use M2M, USER_FEDERATION or ON_BEHALF_OF_TOKEN_EXCHANGE", r.Flow))
}

// ground opens the workload access token, finds the provider, and turns away what no later step could allow. What
// exists is told only to a caller that may act for the workload identity.
func (b *Broker) ground(ctx context.Context, caller access.Caller, r Request) (grounds, error) {
	facts := access.Facts{Provider: r.Provider, Flow: r.Flow, Scopes: r.Scopes}
	opened, err := b.identity.Open(ctx, caller, access.GetResourceOauth2Token, r.Token, facts, r.Session != "")
	if err != nil {
		return grounds{}, err
	}
	g := grounds{caller: caller, token: opened.Token, workload: opened.Workload, facts: opened.Facts}
	if g.provider, err = b.store.Provider(ctx, caller.Account, r.Provider); err != nil {
		return grounds{}, b.unlessDenied(ctx, g, err)
	}
	if rule, because, err := b.bars(ctx, g.token, g.provider.UID, g.provider.Name, g.provider.Tags); err != nil {
		return grounds{}, err
	} else if because != nil {
		return grounds{}, b.turnAway(ctx, g, rule, because)
	}
	var known bool
	if g.vendor, known = b.catalogue.Vendor(g.provider.Vendor); !known {
		return grounds{}, b.unlessDenied(ctx, g, fault.New(fault.Unavailable, "vendor %s of provider %s is not in this server's catalogue", g.provider.Vendor, r.Provider))
	}
	if r.Flow == FlowUserFederation && g.token.User.Kind == identity.NoUser {
		return grounds{}, b.unlessDenied(ctx, g, fault.Field("workloadIdentityToken",
			"names no user, and USER_FEDERATION needs one: mint it with GetWorkloadAccessTokenForJWT"))
	}
	if r.Flow == FlowUserFederation && g.provider.ClientID == "" {
		return grounds{}, b.unlessDenied(ctx, g, fault.Field("oauth2Flow", "provider %s has no clientId, and USER_FEDERATION needs one", r.Provider))
	}
	if err := r.checkCustom(); err != nil {
		return grounds{}, b.unlessDenied(ctx, g, err)
	}
	g.bounds = boundsOf(g.token, g.provider.UID)
	return g, nil
}

// unlessDenied returns err to a caller that may act for the workload identity, and the refusal to any other.
func (b *Broker) unlessDenied(ctx context.Context, g grounds, err error) error {
	g.facts.Outcome = "error"
	if denied := b.guard.Permit(ctx, g.caller, access.GetResourceOauth2Token, g.facts); denied != nil {
		return denied
	}
	return err
}

// turnAway refuses a caller that may act for the workload identity, by a rule that is not the rule table's. Any other
// gets the table's refusal, and learns nothing of what is there.
func (b *Broker) turnAway(ctx context.Context, g grounds, rule string, because error) error {
	if err := b.unlessDenied(ctx, g, nil); err != nil {
		return err
	}
	g.facts.Outcome = "refused"
	return b.guard.Refuse(ctx, g.caller, access.GetResourceOauth2Token, rule, g.facts, because)
}

// reserved are the parameters of an authorization or token request that a caller cannot set, in any spelling (threat
// C19).
func reserved(name string) bool {
	switch access.Spelled(name) {
	case "client_id", "client_secret", "client_assertion", "client_assertion_type", "redirect_uri", "response_type", "response_mode",
		"state", "scope", "code", "code_challenge", "code_challenge_method", "code_verifier", "nonce", "request", "request_uri",
		"resource", "audience", "grant_type", "refresh_token", "username", "password", "assertion", "subject_token", "actor_token", "actor_token_type":
		return true
	}
	return false
}

func (r *Request) checkCustom() error {
	seen := make(map[string]bool, len(r.CustomParameters))
	for name := range r.CustomParameters {
		one := access.Spelled(name)
		if name == audienceParameter && len(r.Audiences) > 0 {
			return fault.Field("customParameters", "the parameter audience is given in audiences already")
		}
		if reserved(name) && name != audienceParameter {
			return fault.Field("customParameters", "the parameter %s is set by the broker and cannot be overridden", name)
		}
		if seen[one] {
			return fault.Field("customParameters", "the parameter %s occurs twice in different spellings", name)
		}
		seen[one] = true
	}
	return nil
}

// audienceParameter is the one standard parameter that may come as a custom one: Atlassian, Auth0 and others take it
// so, as AWS's own guide shows.
const audienceParameter = "audience"

// foldAudience makes a custom audience one of the request's audiences. They are part of the connection's key: a token
// for one audience must not serve a request for another.
func (r *Request) foldAudience() {
	if a, ok := r.CustomParameters[audienceParameter]; ok {
		r.Audiences = []string{a.Expose()}
		r.CustomParameters = maps.Clone(r.CustomParameters)
		delete(r.CustomParameters, audienceParameter)
	}
}

// userToken serves USER_FEDERATION from the vault, or opens a consent session.
func (b *Broker) userToken(ctx context.Context, g grounds, r Request) (Outcome, error) {
	if r.ReturnURL != "" {
		check := func() error { return b.checkReturnURL(g.workload, r.ReturnURL) }
		if r.ReturnURL == b.HostedReturnURL() {
			check = func() error { return b.checkHosted(ctx, g) }
		}
		if err := check(); err != nil {
			return Outcome{}, b.unlessDenied(ctx, g, err)
		}
	}
	name := g.name(r, FlowUserFederation, g.token.UserRef)
	c, err := b.store.Connection(ctx, g.caller.Account, name.key())
	if errors.Is(err, fault.NotFound) {
		return b.fromSibling(ctx, g, r, name)
	}
	if err != nil {
		return Outcome{}, err
	}
	return b.fromVault(ctx, g, r, c)
}

// fromVault serves USER_FEDERATION from the connection, or opens a consent session.
func (b *Broker) fromVault(ctx context.Context, g grounds, r Request, c Connection) (Outcome, error) {
	if r.Force || !c.usable(g.provider) || !g.vendor.serves(c, r.Scopes) {
		return b.openSession(ctx, g, r, c)
	}
	out, err := b.release(ctx, g, r, c)
	if !errors.Is(err, errConsentNeeded) {
		return out, err
	}
	if c, err = b.store.Connection(ctx, c.Account, c.Key); err != nil { // its tokens have died since it was read
		return Outcome{}, err
	}
	return b.openSession(ctx, g, r, c)
}

// usable reports whether the connection's tokens may be used at all.
func (c Connection) usable(p Provider) bool {
	return (c.State == Active || c.State == Refreshing) && c.Identity == p.Identity && len(c.Access) > 0
}

// fresh reports whether the access token has life enough to be released. A provider that says nothing of expiry is
// believed until somebody reports the token as invalid.
func (c Connection) fresh(now time.Time) bool {
	return c.Expires.IsZero() || c.Expires.Sub(now) >= minLeft
}

// errConsentNeeded says that nothing but a new consent helps. It never leaves the package.
var errConsentNeeded = errors.New("consent is needed")

// release renews the token if it is about to expire, decides about the token that is there then, and hands it out
// with the receipt of its record.
func (b *Broker) release(ctx context.Context, g grounds, r Request, c Connection) (Outcome, error) {
	if !c.fresh(b.now()) {
		var err error
		if g, c, err = b.refreshed(ctx, g, r, c); err != nil {
			return Outcome{}, err
		}
	}
	return b.handOut(ctx, g, c)
}

// handOut decides about the token, and hands it out with the receipt of its record.
func (b *Broker) handOut(ctx context.Context, g grounds, c Connection) (Outcome, error) {
	receipt, err := b.releasing(ctx, g, c, "")
	if err != nil {
		return Outcome{}, err
	}
	token, err := b.vault.Open(ctx, c.ref("access"), c.Access)
	if err != nil {
		return Outcome{}, err
	}
	attributes, err := b.openAttributes(ctx, c)
	if err != nil {
		return Outcome{}, err
	}
	if err := receipt.Wait(ctx); err != nil {
		return Outcome{}, err
	}
	return Outcome{
		AccessToken: token, TokenType: c.TokenType, Expires: c.Expires, Granted: c.Granted, State: Active, Connection: c.ID, Attributes: attributes,
	}, nil
}

// releasing decides that the connection's token leaves, and counts it. Every way out asks here, once.
func (b *Broker) releasing(ctx context.Context, g grounds, c Connection, detail string) (access.Receipt, error) {
	if err := b.within(ctx, g, c.Granted); err != nil {
		return access.Receipt{}, err
	}
	f := g.about(c.Granted)
	f.Connection, f.Generation, f.Outcome, f.Detail = c.ID, c.Generation, "released", detail
	f.Released = !g.counted
	return b.guard.Check(ctx, g.caller, access.GetResourceOauth2Token, f)
}

// refreshed decides that the tokens may be renewed, which counts at the ceilings, and renews them. While refreshes
// fail there are pauses, in which a token that still lives serves.
func (b *Broker) refreshed(ctx context.Context, g grounds, r Request, c Connection) (grounds, Connection, error) {
	if err := b.within(ctx, g, c.Granted); err != nil {
		return g, c, err
	}
	f := g.about(c.Granted)
	f.Connection, f.Generation, f.Outcome, f.Released = c.ID, c.Generation, "refresh", c.renewable()
	if err := b.guard.Permit(ctx, g.caller, access.GetResourceOauth2Token, f); err != nil {
		return g, c, err
	}
	g.counted = f.Released
	if pause := b.paces.turns.Pause(c.Account, c.Key); pause > 0 && c.renewable() {
		if c.usable(g.provider) && c.lives(b.now()) {
			return g, c, nil
		}
		return g, c, b.slow(ctx, g, c.ID, pause, "the refresh of the token failed")
	}
	c, err := b.renew(ctx, g, r, c)
	return g, c, err
}

// machineToken serves M2M.
func (b *Broker) machineToken(ctx context.Context, g grounds, r Request) (Outcome, error) {
	g.facts.UserRef = ""
	return b.directToken(ctx, g, r, direct{flow: FlowM2M, doing: "the client credentials", ask: func(ctx context.Context) (Grant, error) {
		return b.clientGrant(ctx, g, TokenRequest{Scopes: r.Scopes, Resources: r.Resources, Audiences: r.Audiences, Custom: r.CustomParameters})
	}})
}

// clientGrant asks the provider for a token of the client itself.
func (b *Broker) clientGrant(ctx context.Context, g grounds, r TokenRequest) (Grant, error) {
	endpoints, clientSecret, err := b.client(ctx, g.provider)
	if err != nil {
		return Grant{}, err
	}
	return b.upstream.ClientCredentials(ctx, endpoints, g.provider, g.vendor, clientSecret, r)
}

// direct is a way to tokens that needs no consent.
type direct struct {
	flow  string
	user  string // reference, "" for none
	doing string // what a sentence about the provider calls it
	ask   func(context.Context) (Grant, error)
}

// directToken serves the stored token until it expires, then a new one.
func (b *Broker) directToken(ctx context.Context, g grounds, r Request, d direct) (Outcome, error) {
	key := g.name(r, d.flow, d.user).key()
	c, err := b.store.Connection(ctx, g.caller.Account, key)
	switch {
	case errors.Is(err, fault.NotFound):
		c = Connection{
			Account: g.caller.Account, ID: "cn_" + random(15), Key: key, Workload: g.workload.UID, User: d.user,
			Provider: g.provider.UID, Flow: d.flow, Resources: r.Resources, Resource: r.resource, Audiences: r.Audiences,
			Parameters: r.parameters, ParamNames: r.parameterNames, Created: b.now(),
		}
		if err := b.roomFor(ctx, g, c); err != nil {
			return Outcome{}, err
		}
	case err != nil:
		return Outcome{}, err
	case !r.Force && c.usable(g.provider) && c.fresh(b.now()):
		out, err := b.release(ctx, g, r, c)
		if !errors.Is(err, errConsentNeeded) {
			return out, err
		} // it grew too old between the two looks at the clock
	}
	return b.fetch(ctx, g, r, c, d)
}

// fetch asks the provider for a token and stores it. Nothing is lost if we die here: the grant can be repeated, and
// the token that was on its way expires unused. Policy and ceilings decide before anybody is asked. One request asks
// at a time, the others get what it brought; and there are pauses in which a token that lives serves (threat M14).
func (b *Broker) fetch(ctx context.Context, g grounds, r Request, c Connection, d direct) (Outcome, error) {
	if err := b.within(ctx, g, r.Scopes); err != nil {
		return Outcome{}, err
	}
	f := g.about(r.Scopes)
	f.Connection, f.Generation, f.Outcome, f.Released = c.ID, c.Generation, "fetch", true
	if err := b.guard.Permit(ctx, g.caller, access.GetResourceOauth2Token, f); err != nil {
		return Outcome{}, err
	}
	g.counted = true
	for seen := c.Generation; ; {
		leave, pause, err := b.paces.turns.Enter(ctx, c.Account, c.Key)
		why := "the last requests for it failed"
		if err != nil {
			return Outcome{}, err
		}
		if leave != nil {
			defer leave()
		}
		// Another may have had its turn since this request looked.
		switch stored, err := b.store.Connection(ctx, c.Account, c.Key); {
		case err == nil:
			c = stored
		case !errors.Is(err, fault.NotFound):
			return Outcome{}, err
		}
		lives := c.usable(g.provider) && c.lives(b.now())
		if c.Generation > seen && lives {
			return b.handOut(ctx, g, c)
		}
		if leave != nil {
			if pause, why = b.paces.fetch(g, r, c); pause == 0 {
				return b.fetchNow(ctx, g, r, c, d)
			}
		}
		switch {
		case pause > 0 && lives:
			return b.handOut(ctx, g, c)
		case pause > 0:
			return Outcome{}, b.slow(ctx, g, c.ID, pause, why)
		}
	}
}

// fetchNow is fetch, of the request whose turn it is.
func (b *Broker) fetchNow(ctx context.Context, g grounds, r Request, c Connection, d direct) (Outcome, error) {
	grant, err := d.ask(ctx)
	b.paces.turns.Ended(c.Account, c.Key, asked(err))
	if err != nil {
		f := g.about(r.Scopes)
		f.Connection, f.Generation, f.Outcome, f.Detail = c.ID, c.Generation, "failed", detail(err)
		if err := b.guard.Event(ctx, g.caller, access.GetResourceOauth2Token, f).Wait(ctx); err != nil {
			return Outcome{}, err
		}
		return Outcome{}, providerFault(g.provider, d.doing, err)
	}
	old := c.Generation
	if c, err = b.sealGrant(ctx, c, g.provider, grant, upstream{}, r.Scopes); err != nil {
		return Outcome{}, err
	}
	switch err := b.store.SwapConnection(ctx, c, old); fault.CodeOf(err) {
	case "":
	case fault.Conflict:
		// Somebody else's token is stored, and ours is as good: both were just issued to the same client. The answer
		// and the trail name the connection that exists.
		stored, err := b.store.Connection(ctx, c.Account, c.Key)
		if err != nil {
			return Outcome{}, err
		}
		c.ID, c.Generation = stored.ID, stored.Generation
	default:
		return Outcome{}, b.tooMany(ctx, g, c, err)
	}
	// What was granted may be more than what was asked for, and decided, before.
	receipt, err := b.releasing(ctx, g, c, g.vendor.unrequested(c.Granted, c.Requested))
	if err != nil {
		return Outcome{}, err
	}
	if err := receipt.Wait(ctx); err != nil {
		return Outcome{}, err
	}
	return Outcome{
		AccessToken: grant.AccessToken, TokenType: c.TokenType, Expires: c.Expires, Granted: c.Granted, State: Active, Connection: c.ID,
		Attributes: grant.Attributes,
	}, nil
}

// sealGrant makes c the next generation of the connection, holding what the provider granted. If the provider names
// no scopes, those asked for were granted (RFC 6749 §5.1). If none were asked for either, or the vendor has none,
// nobody knows what the token may do: no scope is granted, and that covers no list (threat M02). u is the account at
// the provider.
func (b *Broker) sealGrant(ctx context.Context, c Connection, p Provider, grant Grant, u upstream, asked []string) (Connection, error) {
	c.Generation++
	c.Identity = p.Identity
	c.Requested, c.Claims = asked, nil
	c.Granted = grant.Scopes
	if c.Granted == nil {
		c.Granted = asked
	}
	if v, ok := b.catalogue.Vendor(p.Vendor); len(c.Granted) == 0 || ok && v.NoScopes {
		c.Granted = nil
	}
	c.TokenType, c.State, c.Reason = grant.TokenType, Active, ""
	c.Updated = b.now()
	c.Expires = time.Time{}
	if grant.ExpiresIn > 0 {
		c.Expires = c.Updated.Add(grant.ExpiresIn)
	}
	var err error
	if c.Access, err = b.vault.Seal(ctx, c.ref("access"), grant.AccessToken); err != nil {
		return c, err
	}
	c.Refresh = nil
	if !grant.RefreshToken.IsZero() {
		if c.Refresh, err = b.vault.Seal(ctx, c.ref("refresh"), grant.RefreshToken); err != nil {
			return c, err
		}
	}
	if c.Attributes, err = b.sealAttributes(ctx, c, grant.Attributes); err != nil {
		return c, err
	}
	if c.Upstream, err = b.sealUpstream(ctx, c, u); err != nil {
		return c, err
	}
	c.GrantRef, err = b.grantRef(ctx, c, u)
	return c, err
}

// detail is what the trail says of a provider's failure.
func detail(err error) string {
	if up, ok := errors.AsType[*UpstreamError](err); ok {
		return string(up.Kind) + up.said()
	}
	return string(fault.CodeOf(err))
}
