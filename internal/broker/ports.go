package broker

import (
	"cmp"
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Store keeps providers, connections and flows. Every method that takes an account answers NotFound for what is
// another's. Times of leases are the database's.
type Store interface {
	ProviderStore
	ConnectionStore
	LineageStore
	FlowStore
	InventoryStore
	RevocationStore
	HostedStore
	APIKeyStore
	VaultTagStore
}

// ProviderStore keeps credential providers.
type ProviderStore interface {
	// CreateProvider returns Conflict where the name exists.
	CreateProvider(ctx context.Context, p Provider) error
	// Provider finds by name and may be up to one second old. ProviderByUID is as recent; ProviderByCallback takes no
	// account: the callback id is unique in the server.
	Provider(ctx context.Context, account access.Account, name string) (Provider, error)
	ProviderByUID(ctx context.Context, account access.Account, uid string) (Provider, error)
	ProviderByCallback(ctx context.Context, callbackID string) (Provider, error)
	Providers(ctx context.Context, account access.Account, after string, limit int) ([]Provider, error)
	// SwapProvider replaces the row where its version is still oldVersion, else returns Conflict. Where p.Identity
	// differs from the stored one, the same transaction sets its active connections to needs_reauth (reason
	// "provider_changed") and fails its open flows.
	SwapProvider(ctx context.Context, p Provider, oldVersion int64) error
	// DeleteProvider removes the provider, and its connections and flows with all that is sealed in them.
	DeleteProvider(ctx context.Context, account access.Account, name string) error
	// PinProvider sets Pinned where it is still "", and returns what it is afterwards.
	PinProvider(ctx context.Context, account access.Account, uid, origin string) (string, error)
	// PinAuthorization does the same with PinnedAuthorization.
	PinAuthorization(ctx context.Context, account access.Account, uid, origin string) (string, error)
}

// ConnectionStore keeps connections and the journal of attempts.
type ConnectionStore interface {
	// Connection reads one row by its key, never from a cache: it is the one read of the hot path.
	Connection(ctx context.Context, account access.Account, key string) (Connection, error)
	ConnectionByID(ctx context.Context, account access.Account, id string) (Connection, error)
	// RoomForConnection returns Throttled where c's workload identity and user have MaxConnections of c's provider
	// already. What is revoked does not count, nor a token that needs no consent and has expired.
	RoomForConnection(ctx context.Context, c Connection) error
	// SwapConnection replaces the row of c.Key where its generation is still oldGeneration, else returns Conflict.
	// With oldGeneration 0 it inserts, and returns Conflict where the key exists, and for flows without consent Throttled
	// as RoomForConnection. The lease is cleared.
	SwapConnection(ctx context.Context, c Connection, oldGeneration int64) error
	// ForgetRequested empties Requested of the connection with the key, if there is one. No token depends on it.
	ForgetRequested(ctx context.Context, account access.Account, key string) error
	// LeaseConnection takes the lease of the row where its generation is still generation and no lease lives: state
	// refreshing, fence raised, lease until now+ttl by the database's clock. In the same transaction it journals a
	// (whose Fence it sets). It returns the new fence, or Conflict where the lease is taken or the generation moved.
	LeaseConnection(ctx context.Context, a Attempt, key string, ttl time.Duration) (fence int64, err error)
	// FinishLease replaces the row where the fence is still fence, else returns Conflict; clears the lease and
	// closes the attempt with outcome, in one transaction.
	FinishLease(ctx context.Context, c Connection, fence int64, outcome string) error
	// OpenAttempt returns the newest attempt on subject that has no outcome and a fence below before, or NotFound: its
	// holder died between the journal and the result.
	OpenAttempt(ctx context.Context, account access.Account, subject string, before int64) (Attempt, error)
}

// FlowStore keeps consent sessions and their visits.
type FlowStore interface {
	// CreateFlow returns Throttled where max sessions of f's workload identity and user are open and unexpired at
	// f.Created; and Throttled with ErrManyConnections where f, with the other open sessions, would make more connections
	// of f's provider than MaxConnections.
	CreateFlow(ctx context.Context, f Flow, max int) error
	// FlowByID takes no account: the id is the hash of an unguessable URI. The core checks whose it is.
	FlowByID(ctx context.Context, id string) (Flow, error)
	// AddVisit stores a visit where the flow is still in state created, else returns Conflict; and returns Limit
	// where the flow has max visits.
	AddVisit(ctx context.Context, v Visit, max int) error
	// SpendVisit marks the visit as spent, where it is not spent and its cookie is cookie, and returns it. It returns
	// NotFound where the state is unknown, Denied where the cookie differs (nothing is spent), Conflict where it was
	// spent already.
	SpendVisit(ctx context.Context, state, cookie string) (Visit, error)
	// HoldCode moves created → code_held with the sealed code and verifier, else returns Conflict.
	HoldCode(ctx context.Context, id string, code, verifier vault.Sealed) error
	// StartRedeem moves code_held → redeeming, raises the fence, sets the lease and journals a in one transaction;
	// else returns Conflict.
	StartRedeem(ctx context.Context, id string, a Attempt, ttl time.Duration) (fence int64, err error)
	// ReturnCode moves redeeming → code_held where the fence is still fence, and closes the attempt as not_sent.
	ReturnCode(ctx context.Context, id string, fence int64) error
	// FinishRedeem moves redeeming → redeemed where the fence is still fence, erases code and verifier, stores c as
	// SwapConnection does with oldGeneration, and closes the attempt as stored: one transaction, else Conflict. If l has
	// an ID it is stored too, where it is new or its generation is no other than before. Lineages of c's user and provider
	// that no connection is left on are deleted.
	FinishRedeem(ctx context.Context, id string, fence int64, c Connection, oldGeneration int64, l Lineage) error
	// AnswerFlow moves created or code_held → redeemed with the id of a connection that another flow made, and erases what
	// is sealed; else it returns Conflict.
	AnswerFlow(ctx context.Context, account access.Account, id, connection string) error
	// FailFlow moves any state but redeemed and failed to failed with reason, erases what is sealed, and reports
	// whether it did. A flow that is redeeming fails only where its fence is fence (or its lease has run out).
	FailFlow(ctx context.Context, id, reason string, fence int64) (bool, error)
	// SweepFlows deletes flows (with their visits) that expired before t, at most limit, and returns how many.
	SweepFlows(ctx context.Context, t time.Time, limit int) (int, error)
}

// Catalogue knows the vendors.
type Catalogue interface {
	Vendor(name string) (Vendor, bool)
	Vendors() []Vendor // in the order of the contract
}

// Endpoints are a provider's addresses, resolved.
type Endpoints struct {
	Issuer        string
	Authorization string
	Token         string
	Revocation    string // RFC 7009, "" where the metadata names none
	IssInResponse bool   // authorization_response_iss_parameter_supported (RFC 9207 §3)
}

// Upstream talks to providers, through the guarded dialer. Its failures are *UpstreamError, or an Unavailable or
// Invalid fault where the provider's metadata cannot be had or used.
type Upstream interface {
	Inspector
	// Endpoints resolves the provider's addresses, by discovery where it has a discovery URL (cached).
	Endpoints(ctx context.Context, p Provider) (Endpoints, error)
	// AuthorizationURL builds the address that the browser is sent to. It contacts nobody.
	AuthorizationURL(e Endpoints, p Provider, v Vendor, r AuthorizationRequest) (string, error)
	// Redeem exchanges a code (RFC 6749 §4.1.3, RFC 7636 §4.5).
	Redeem(ctx context.Context, e Endpoints, p Provider, v Vendor, clientSecret secret.Text, r CodeGrant) (Grant, error)
	// Refresh uses a refresh token (RFC 6749 §6).
	Refresh(ctx context.Context, e Endpoints, p Provider, v Vendor, clientSecret, refresh secret.Text, r TokenRequest) (Grant, error)
	// ClientCredentials asks for a token of the client itself (RFC 6749 §4.4).
	ClientCredentials(ctx context.Context, e Endpoints, p Provider, v Vendor, clientSecret secret.Text, r TokenRequest) (Grant, error)
	// Revoke revokes a token at e.Revocation as v.Revoke says. hint is refresh_token or access_token. Asking again is
	// harmless, whatever came of it.
	Revoke(ctx context.Context, e Endpoints, p Provider, v Vendor, clientSecret, token secret.Text, hint string) error
	// Exchange trades a user's token as p.OnBehalfOf says (RFC 8693 §2.1, RFC 7523 §2.1).
	Exchange(ctx context.Context, e Endpoints, p Provider, v Vendor, clientSecret secret.Text, x Exchange) (Grant, error)
}

// AuthorizationRequest is what goes into the authorization URL.
type AuthorizationRequest struct {
	RedirectURI string
	Scopes      []string
	State       secret.Text
	Verifier    secret.Text // PKCE: the challenge is derived from it (S256)
	Resources   []string    // RFC 8707
	Audiences   []string
	Custom      map[string]secret.Text // cannot override what the broker sets
	Claims      secret.Text            // that the provider asked for; empty for none (OpenID Connect Core §5.5)
}

// CodeGrant is a code to redeem.
type CodeGrant struct {
	Code        secret.Text
	Verifier    secret.Text
	RedirectURI string
	Resources   []string
}

// TokenRequest is what a token request may ask for besides the grant.
type TokenRequest struct {
	Scopes    []string
	Resources []string
	Audiences []string
	Custom    map[string]secret.Text
}

// Exchange is a user's token to trade, and the token that is wanted for it.
type Exchange struct {
	Subject secret.Text // the user's JWT
	Actor   secret.Text // what the provider's Actor says: an access token of the client, or our JWT; empty where nobody is named
	TokenRequest
}

// Grant is a provider's answer.
type Grant struct {
	AccessToken  secret.Text
	RefreshToken secret.Text // empty where none came
	TokenType    string      // "Bearer"
	ExpiresIn    time.Duration
	Scopes       []string // nil where the provider did not say: then as requested (RFC 6749 §5.1)

	// Attributes are what the vendor answers beside the token and callers need: an address, a team. Nil where none.
	Attributes map[string]string

	// IDToken came with the tokens, in whatever form; empty where none did (OpenID Connect Core §3.1.3.3).
	IDToken secret.Text
}

// UpstreamKind says what a failed call to a provider means for the grant that was used.
type UpstreamKind string

// Values of UpstreamKind.
const (
	Unsent   UpstreamKind = "unsent"   // nothing reached the provider: safe to try again
	Busy     UpstreamKind = "busy"     // 5xx or 429: the provider refused before it looked at the grant
	Rejected UpstreamKind = "rejected" // the provider looked and said no
	Unknown  UpstreamKind = "unknown"  // sent, and no usable answer: the grant may be spent
)

// UpstreamError is a provider's failure, bounded and cleaned.
type UpstreamError struct {
	Kind        UpstreamKind
	Status      int         // HTTP status, 0 where there was none
	Code        string      // RFC 6749 §5.2 error, "" where there was none
	Description string      // error_description, cleaned
	Sub         string      // suberror: what kind of Code it is, at some providers
	Claims      secret.Text // a JSON object that the provider wants in the next authorization request; empty for none
	Err         error       // private cause; may name addresses
}

// Error has everything, for logs.
func (e *UpstreamError) Error() string {
	s := "provider " + string(e.Kind)
	if e.Code != "" {
		s += ": " + e.Code
	}
	if e.Description != "" {
		s += ": " + e.Description
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// asksUser reports whether the grant is good and the provider wants its user before it serves this request (OpenID
// Connect Core §3.1.2.6). Some say so in a suberror of invalid_grant.
func (e *UpstreamError) asksUser() bool {
	code := e.Code
	if code == "invalid_grant" {
		code = e.Sub
	}
	switch code {
	case "interaction_required", "consent_required", "login_required", "basic_action", "additional_action":
		return e.Kind == Rejected
	}
	return false
}

// reason is what a connection says of a refusal.
func (e *UpstreamError) reason() string {
	if e.Code == "invalid_grant" && e.Sub != "" {
		return e.Sub
	}
	return cmp.Or(e.Code, "invalid_grant")
}

// Unwrap gives the private cause.
func (e *UpstreamError) Unwrap() error { return e.Err }
