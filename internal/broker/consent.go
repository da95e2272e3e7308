package broker

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// Ending says why a browser's step in a flow cannot go on, for the page that it sees.
type Ending string

// Values of Ending.
const (
	EndUnknown      Ending = "unknown"       // no such session, or state
	EndExpired      Ending = "expired"       // ten minutes are over
	EndUsed         Ending = "used"          // the consent was already given, or the answer already taken
	EndDeclined     Ending = "declined"      // the user said no at the provider
	EndFailed       Ending = "failed"        // the provider reported a problem, or the session was ended
	EndOtherBrowser Ending = "other_browser" // the answer arrived in a browser that did not begin the visit
	EndMixedUp      Ending = "mixed_up"      // the answer is not from the provider that was asked
	EndMoved        Ending = "moved"         // the provider's metadata names another host than before; the session goes on
)

// EndError is the cause of a Denied fault from the browser's steps.
type EndError struct {
	Ending Ending
	Detail string // the provider's cleaned words, safe to show escaped
}

// Error names the ending.
func (e *EndError) Error() string { return string(e.Ending) + ": " + e.Detail }

func ending(e Ending, detail, format string, args ...any) error {
	return fault.Wrap(fault.Denied, &EndError{e, detail}, "Invalid or expired session: "+format, args...)
}

var (
	errNoSession = ending(EndUnknown, "", "no such session")
	errGiven     = ending(EndUsed, "", "consent was already given for it")
	errExpired   = ending(EndExpired, "", "the session has expired: ask for the token again")
)

// checkReturnURL holds a return URL against the workload identity's list: an exact string match, nothing cleverer
// (threat C17). Under --dev, any address on loopback will do.
func (b *Broker) checkReturnURL(w identity.Workload, raw string) error {
	if slices.Contains(w.ReturnURLs, raw) {
		return nil
	}
	if b.dev {
		if u, err := url.Parse(raw); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.Fragment == "" && identity.IsLoopback(u.Hostname()) {
			return nil
		}
	}
	if len(w.ReturnURLs) == 0 {
		return fault.Field("resourceOauth2ReturnUrl", "You must register and use at least one ResourceOauth2ReturnUrl on your workload identity to use this flow (workload identity %s has none)", w.Name)
	}
	return fault.Field("resourceOauth2ReturnUrl", "is not registered on workload identity %s; registered, to be matched exactly: %s", w.Name, strings.Join(w.ReturnURLs, " "))
}

// openSession starts a consent session for what is asked and what was asked for at had's consent.
func (b *Broker) openSession(ctx context.Context, g grounds, r Request, had Connection) (Outcome, error) {
	if err := b.awake(ctx, g); err != nil {
		return Outcome{}, err
	}
	if r.ReturnURL == "" {
		err := fault.Field("resourceOauth2ReturnUrl", "You must provide a ResourceOauth2ReturnUrl to proceed with this flow")
		if len(g.workload.ReturnURLs) == 0 && !b.dev {
			err = fault.Field("resourceOauth2ReturnUrl", "You must register and use at least one ResourceOauth2ReturnUrl on your workload identity to use this flow")
		}
		return Outcome{}, b.unlessDenied(ctx, g, err)
	}
	scopes := r.Scopes
	if had.usable(g.provider) { // else there is nothing to lose, and no reason to ask for more than the request
		scopes = g.vendor.union(r.Scopes, had.Requested)
	}
	f := g.about(scopes)
	f.Connection, f.Outcome = had.ID, "consent_required"
	if err := b.guard.Permit(ctx, g.caller, access.GetResourceOauth2Token, f); err != nil {
		return Outcome{}, err
	}
	if err := b.identity.RememberUser(ctx, g.caller.Account, g.token.User); err != nil {
		return Outcome{}, err
	}
	session := SessionPrefix + random(32)
	now := b.now()
	flow := Flow{
		ID: digest("session-1", session), Account: g.caller.Account, Workload: g.workload.UID, WorkloadName: g.workload.Name,
		Generation: g.workload.Generation, Token: g.token.Hash, User: g.token.UserRef, UserKind: string(g.token.User.Kind),
		Provider: g.provider.UID, ProviderName: g.provider.Name, Identity: g.provider.Identity, Resources: r.Resources, Resource: r.resource,
		Parameters: r.parameters, ParamNames: r.parameterNames, SentNames: slices.Sorted(maps.Keys(r.CustomParameters)),
		Audiences: r.Audiences, Scopes: scopes, Requested: r.Scopes, ReturnURL: r.ReturnURL, Force: r.Force, State: FlowCreated,
		Created: now, Expires: now.Add(SessionLifetime),
	}
	var err error
	if flow.Session, err = b.vault.Seal(ctx, flow.ref("session"), secret.New(session)); err != nil {
		return Outcome{}, err
	}
	if !r.CustomState.IsZero() {
		if flow.CustomState, err = b.vault.Seal(ctx, flow.ref("custom_state"), r.CustomState); err != nil {
			return Outcome{}, err
		}
	}
	if flow.CustomParams, err = b.sealParams(ctx, flow, r.CustomParameters); err != nil {
		return Outcome{}, err
	}
	if flow.Upstream, err = b.rememberAccount(ctx, flow, had); err != nil {
		return Outcome{}, err
	}
	switch err := b.store.CreateFlow(ctx, flow, maxSessions); fault.CodeOf(err) {
	case "":
	case fault.Throttled:
		if errors.Is(err, ErrManyConnections) {
			return Outcome{}, b.tooMany(ctx, g, had, err)
		}
		f.Outcome = "refused"
		return Outcome{}, b.guard.Refuse(ctx, g.caller, access.GetResourceOauth2Token, "too-many-sessions", f,
			fault.Wrap(fault.Throttled, err, "%d consent sessions of this user are open at workload identity %s, which is as many as there may be: "+
				"poll one of them with sessionUri, or wait until they end", maxSessions, g.workload.Name))
	default:
		return Outcome{}, err
	}
	return b.pending(session), nil
}

func (b *Broker) pending(session string) Outcome {
	u := b.publicURL + "/identities/oauth2/authorize?request_uri=" + url.QueryEscape(session)
	return Outcome{AuthorizationURL: secret.New(u), Session: session}
}

func (b *Broker) sealParams(ctx context.Context, f Flow, params map[string]secret.Text) ([]byte, error) {
	if len(params) == 0 {
		return nil, nil
	}
	plain := make(map[string]string, len(params))
	for k, v := range params {
		plain[k] = v.Expose()
	}
	doc, err := json.Marshal(plain)
	if err != nil {
		return nil, err
	}
	return b.vault.Seal(ctx, f.ref("custom_params"), secret.New(string(doc)))
}

func (b *Broker) openParams(ctx context.Context, f Flow) (map[string]secret.Text, error) {
	if len(f.CustomParams) == 0 {
		return nil, nil
	}
	doc, err := b.vault.Open(ctx, f.ref("custom_params"), f.CustomParams)
	if err != nil {
		return nil, err
	}
	var plain map[string]string
	if err := json.Unmarshal([]byte(doc.Expose()), &plain); err != nil {
		return nil, err
	}
	params := make(map[string]secret.Text, len(plain))
	for k, v := range plain {
		params[k] = secret.New(v)
	}
	return params, nil
}

// poll answers a call that names a session: pending, the token once it is redeemed, or why there will be none. A
// poll of somebody else's session learns nothing and changes nothing.
func (b *Broker) poll(ctx context.Context, g grounds, r Request) (Outcome, error) {
	polled := g
	polled.facts.Resource = "session"
	flow, err := b.store.FlowByID(ctx, digest("session-1", r.Session))
	if err != nil && !errors.Is(err, fault.NotFound) {
		return Outcome{}, err
	}
	if err != nil || flow.Account != g.caller.Account || flow.Workload != g.workload.UID || flow.Generation != g.workload.Generation ||
		flow.User != g.token.UserRef || flow.Provider != g.provider.UID || r.Flow != FlowUserFederation {
		return Outcome{}, b.turnAway(ctx, polled, "unknown-session", errNoSession)
	}
	// A poll need not repeat them, and what it releases was asked for with them.
	g.facts.Parameters = spelledAll(g.facts.Parameters, flow.SentNames)
	polled.facts.Parameters = g.facts.Parameters
	if err := flow.stillAllowed(g.provider); err != nil {
		return Outcome{}, b.turnAway(ctx, polled, "parameter-not-allowed", err)
	}
	now := b.now()
	over := !now.Before(flow.Expires)
	if g.token.Expired && (flow.Token != g.token.Hash || over) {
		return Outcome{}, b.turnAway(ctx, polled, "token-expired", identity.ErrExpired())
	}
	if r.ReturnURL != "" && r.ReturnURL != flow.ReturnURL {
		return Outcome{}, b.unlessDenied(ctx, g, fault.Field("resourceOauth2ReturnUrl", "differs from the one the session was opened with"))
	}
	switch {
	case flow.State == FlowRedeemed:
		return b.redeemed(ctx, g, r, flow)
	case flow.State == FlowFailed:
		return Outcome{}, b.turnAway(ctx, g, "session-failed", ending(EndFailed, flow.Reason, "%s", flow.Reason))
	case over:
		return Outcome{}, b.turnAway(ctx, g, "session-expired", errExpired)
	}
	if out, answered, err := b.overtaken(ctx, g, r, flow); answered || err != nil {
		return out, err
	}
	polled.facts.Outcome = "pending"
	if err := b.guard.Permit(ctx, g.caller, access.GetResourceOauth2Token, polled.facts); err != nil {
		return Outcome{}, err
	}
	return b.pending(r.Session), nil
}

// redeemed serves the poll of a session whose consent has been redeemed, from the connection that it made.
func (b *Broker) redeemed(ctx context.Context, g grounds, r Request, flow Flow) (Outcome, error) {
	c, err := b.store.ConnectionByID(ctx, flow.Account, flow.Connection)
	if err != nil {
		if errors.Is(err, fault.NotFound) {
			err = ending(EndFailed, "", "what it obtained was deleted")
		}
		return Outcome{}, b.unlessDenied(ctx, g, err)
	}
	r.Resources, r.Audiences = flow.Resources, flow.Audiences
	if c.usable(g.provider) {
		out, err := b.release(ctx, g, r, c)
		if !errors.Is(err, errConsentNeeded) {
			return out, err
		}
	}
	return Outcome{}, b.unlessDenied(ctx, g, ending(EndFailed, c.Reason, "its token has ended: ask for the token again without the session"))
}

// VisitURL is where a browser that opened an authorization URL goes next, and the cookie that it must bring back.
type VisitURL struct {
	URL    secret.Text // at the provider; it carries state
	Cookie secret.Text
	Name   string // of the cookie
	MaxAge time.Duration
}

// CookieName names the cookie of the visit with this state. Each visit has its own, so that several tabs do not
// disturb each other.
func CookieName(state secret.Text) string { return "tabard-visit-" + hashText(state)[:16] }

// Authorize begins a visit: the browser has opened the authorization URL of session. It may happen repeatedly until a
// code is held (link previews do it too); each visit has its own state, PKCE pair and cookie. For hosted consent the
// browser goes to the issuer first, to sign in. Errors the page can explain are Denied faults with an *EndError.
func (b *Broker) Authorize(ctx context.Context, session string) (VisitURL, error) {
	flow, provider, vendor, err := b.openFlow(ctx, digest("session-1", session))
	if err != nil {
		return VisitURL{}, err
	}
	if b.hosted(flow) {
		return b.signIn(ctx, flow)
	}
	if flow.State != FlowCreated {
		return VisitURL{}, errGiven
	}
	return b.visit(ctx, flow, provider, vendor)
}

// visit begins a visit at the provider.
func (b *Broker) visit(ctx context.Context, flow Flow, provider Provider, vendor Vendor) (VisitURL, error) {
	endpoints, err := b.browserEndpoints(ctx, flow, provider)
	if err != nil {
		return VisitURL{}, err
	}
	state, cookie, verifier := secret.New(random(32)), secret.New(random(32)), secret.New(random(32))
	visit := Visit{State: hashText(state), Flow: flow.ID, Cookie: hashText(cookie), Issuer: endpoints.Issuer, IssSent: endpoints.IssInResponse, Created: b.now()}
	if visit.Verifier, err = b.vault.Seal(ctx, verifierRef(flow, visit.State), verifier); err != nil {
		return VisitURL{}, err
	}
	custom, err := b.openParams(ctx, flow)
	if err != nil {
		return VisitURL{}, err
	}
	claims, err := b.claimsFor(ctx, flow.name())
	if err != nil {
		return VisitURL{}, err
	}
	to, err := b.upstream.AuthorizationURL(endpoints, provider, vendor, AuthorizationRequest{
		RedirectURI: b.CallbackURL(provider), Scopes: flow.Scopes, State: state, Verifier: verifier,
		Resources: flow.Resources, Audiences: flow.Audiences, Custom: custom, Claims: claims,
	})
	if err != nil {
		return VisitURL{}, err
	}
	switch err := b.store.AddVisit(ctx, visit, maxVisits); fault.CodeOf(err) {
	case "":
	case fault.Conflict:
		return VisitURL{}, errGiven
	case fault.Limit:
		return VisitURL{}, ending(EndFailed, "the link was opened too often", "it was opened too often")
	default:
		return VisitURL{}, err
	}
	if err := b.flowEvent(ctx, access.Caller{}, flow, access.Authorize, "sent_to_provider", "").Wait(ctx); err != nil {
		return VisitURL{}, err
	}
	return VisitURL{URL: secret.New(to), Cookie: cookie, Name: CookieName(state), MaxAge: flow.Expires.Sub(b.now())}, nil
}

// browserEndpoints is consentEndpoints for a browser's step. That metadata has moved to another host is recorded, and
// is an ending (threat C15). The flow goes on: once an administrator has accepted the new host the link works again.
func (b *Broker) browserEndpoints(ctx context.Context, flow Flow, p Provider) (Endpoints, error) {
	e, err := b.consentEndpoints(ctx, p)
	return e, b.unlessMoved(ctx, flow, err)
}

// unlessMoved records, and makes an ending of, an error which says that metadata has moved.
func (b *Broker) unlessMoved(ctx context.Context, flow Flow, err error) error {
	if fault.CodeOf(err) != fault.Denied {
		return err
	}
	why := fault.Public(err).Msg
	if err := b.flowEvent(ctx, access.Caller{}, flow, access.Authorize, "refused", why).Wait(ctx); err != nil {
		return err
	}
	return fault.Wrap(fault.Denied, errors.Join(&EndError{Ending: EndMoved}, err), "%s", why)
}

// openFlow reads a flow that a browser acts in, with its provider, unless it has ended.
func (b *Broker) openFlow(ctx context.Context, id string) (Flow, Provider, Vendor, error) {
	flow, err := b.store.FlowByID(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return flow, Provider{}, Vendor{}, errNoSession
	}
	if err != nil {
		return flow, Provider{}, Vendor{}, err
	}
	if flow.State == FlowFailed {
		return flow, Provider{}, Vendor{}, ending(EndFailed, flow.Reason, "%s", flow.Reason)
	}
	if !b.now().Before(flow.Expires) {
		return flow, Provider{}, Vendor{}, errExpired
	}
	living, err := b.identity.Lives(ctx, flow.Account, flow.Workload, flow.Generation)
	if err != nil {
		return flow, Provider{}, Vendor{}, err
	}
	if !living {
		return flow, Provider{}, Vendor{}, ending(EndFailed, "the agent was removed", "its workload identity was deleted")
	}
	if err := b.flowStands(ctx, flow); err != nil {
		return flow, Provider{}, Vendor{}, err
	}
	provider, err := b.store.ProviderByUID(ctx, flow.Account, flow.Provider)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return flow, provider, Vendor{}, err
	}
	if err != nil || provider.Identity != flow.Identity {
		return flow, provider, Vendor{}, ending(EndFailed, "the provider was changed", "its provider was changed or deleted")
	}
	if err := flow.stillAllowed(provider); err != nil {
		return flow, provider, Vendor{}, err
	}
	vendor, ok := b.catalogue.Vendor(provider.Vendor)
	if !ok {
		return flow, provider, vendor, fault.New(fault.Unavailable, "vendor %s is not in this server's catalogue", provider.Vendor)
	}
	return flow, provider, vendor, nil
}

// flowEvent records something that happened in a flow. The caller is empty for what a browser did.
func (b *Broker) flowEvent(ctx context.Context, caller access.Caller, f Flow, a access.Action, outcome, why string) access.Receipt {
	caller.Account = f.Account
	return b.guard.Event(ctx, caller, a, f.facts(outcome, why))
}

func (f Flow) facts(outcome, why string) access.Facts {
	return access.Facts{
		Workload: f.WorkloadName, WorkloadUID: f.Workload, UserRef: f.User, Asserted: f.UserKind == string(identity.UIDUser),
		Provider: f.ProviderName, Flow: FlowUserFederation, Scopes: f.Scopes, Connection: f.Connection, Outcome: outcome, Detail: why,
		Unrecorded: access.Unrecorded{Parameters: spelledAll(nil, f.SentNames)},
	}
}
