// Package broker obtains providers' tokens for agents and keeps them.
//
// Security argument: what a caller gets is chosen by the sealed workload access token (which agent, which user) and
// never by a field of the request. Each method that releases a token decides and records through the Guard before the
// token is opened. A code is redeemed only after the same user who started the flow has been confirmed, and only
// once. A refresh token is used by one holder of a lease at a time, and its successor is durable before anybody sees
// what came with it.
package broker

import (
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/vault"
)

// AuthMethod is how we authenticate to a provider's token endpoint (RFC 7591 §2 names).
type AuthMethod string

// Values of AuthMethod.
const (
	AuthBasic AuthMethod = "client_secret_basic"
	AuthPost  AuthMethod = "client_secret_post"
	AuthNone  AuthMethod = "none"

	// AuthPrivateKeyJWT is a signed assertion (RFC 7523 §2.2) by a key that is made here for the one provider.
	AuthPrivateKeyJWT AuthMethod = "private_key_jwt"

	// AuthIDTokenJWT is a signed assertion too, by the installation's own key: the provider trusts this server as an
	// issuer of the one subject that stands for it (RFC 7521 §4.2, where the issuer is not the client).
	AuthIDTokenJWT AuthMethod = "id_token_jwt"
)

// Asserts reports whether the client proves itself by a signed assertion (RFC 7523 §2.2) and has no secret.
func (m AuthMethod) Asserts() bool { return m == AuthPrivateKeyJWT || m == AuthIDTokenJWT }

// Provider is an OAuth2 credential provider: where to get tokens, and as which client.
type Provider struct {
	Account    access.Account
	Name       string
	UID        string // immutable; a recreated name gets another
	CallbackID string // the path segment of its callback URL: UUIDv5 of the ARN
	Vendor     string // an entry of the catalogue

	ClientID   string // may be "" with AuthIDTokenJWT, and then there is no consent
	AuthMethod AuthMethod
	Secret     vault.Sealed // the client secret; empty for a client that has none
	SecretID   string       // random suffix of the secret's ARN
	PrivateKey vault.Sealed // the key of AuthPrivateKeyJWT with what its assertions say besides; else empty
	PublicKey  string       // its public half, a JWK; else ""

	// Either DiscoveryURL or the three others are set.
	DiscoveryURL          string
	Issuer                string
	AuthorizationEndpoint string
	TokenEndpoint         string
	ResponseTypes         []string     // as given inline, for the answer
	TokenAuthMethods      []AuthMethod // as given inline, for the answer

	// OnBehalfOf says how the provider exchanges users' tokens; nil where it does not.
	OnBehalfOf *OnBehalfOf

	// Pinned is the origin of the token endpoint that discovery first named. When the metadata moves it to another
	// host, the client secret is not sent there (threat E18). "" until first use.
	Pinned string

	// PinnedAuthorization is the same of the authorization endpoint: a browser is not sent to another host (threat C15).
	PinnedAuthorization string

	Identity string // security identity: SHA-256 over issuer, endpoints, client id and client authentication
	Tags     map[string]string
	Version  int64
	Created  time.Time
	Updated  time.Time
}

// OnBehalfOf says how a user's token is exchanged for one of the provider. It is part of the provider's security
// identity: it decides what the user's token is sent with.
type OnBehalfOf struct {
	Grant       ExchangeGrant `json:"grant"`
	Actor       Actor         `json:"actor,omitempty"`       // of a TokenExchange
	ActorScopes []string      `json:"actorScopes,omitempty"` // of the token of ActorClient
	NoClient    bool          `json:"noClient,omitempty"`    // the exchange does not authenticate the client
}

// ExchangeGrant is the grant of an exchange on a user's behalf.
type ExchangeGrant string

// Values of ExchangeGrant, as on the wire of the API.
const (
	TokenExchange         ExchangeGrant = "TOKEN_EXCHANGE"          // RFC 8693
	JWTAuthorizationGrant ExchangeGrant = "JWT_AUTHORIZATION_GRANT" // RFC 7523 §2.1
)

// Actor says what an exchange names as the acting party.
type Actor string

// Values of Actor, as on the wire of the API.
const (
	ActorNone   Actor = "NONE"
	ActorClient Actor = "M2M" // a token of the client itself, fetched before

	// ActorIDToken is a JWT that names the workload identity, signed by the installation's own key.
	ActorIDToken Actor = "AWS_IAM_ID_TOKEN_JWT"
)

// Flow names as on the wire.
const (
	FlowM2M            = "M2M"
	FlowUserFederation = "USER_FEDERATION"
	FlowOnBehalfOf     = "ON_BEHALF_OF_TOKEN_EXCHANGE"
)

// ConnectionState is the state of a stored connection.
type ConnectionState string

// Values of ConnectionState.
const (
	Active      ConnectionState = "active"
	Refreshing  ConnectionState = "refreshing"   // a holder of the lease is at the provider
	NeedsReauth ConnectionState = "needs_reauth" // only a new consent helps
	Revoked     ConnectionState = "revoked"
)

// Connection is what the vault holds for one (account, workload, user or none, provider, flow, resources, audiences,
// custom parameters; for M2M also the exact scopes).
type Connection struct {
	Account    access.Account
	ID         string // random; what people see
	Key        string // SHA-256 of the tuple above, hexadecimal: unique in the account
	Workload   string // uid
	User       string // user reference, "" for M2M
	Provider   string // uid
	Flow       string
	Asserted   bool // the user was asserted, not proven
	Resources  []string
	Audiences  []string
	Requested  []string // scopes asked for at the last consent
	Granted    []string // scopes granted
	Access     vault.Sealed
	Refresh    vault.Sealed // empty where there is none, or where it is the lineage's
	Attributes vault.Sealed // JSON object of the vendor's attributes; empty where there are none
	Upstream   vault.Sealed // JSON object of the account at the provider; empty where it is not known
	Claims     vault.Sealed // what the provider asked of the user when it refused; empty for nothing
	Resource   string       // that the scopes name, at a vendor with Resources
	Parameters string       // MAC of the custom parameters that decide which token comes; "" for none
	ParamNames []string     // of those parameters
	GrantRef   string       // MAC of the grant at the provider that the tokens are of; "" if the account there is not known
	Lineage    string       // id of the lineage whose refresh token it lives on; "" for one of its own, or none
	TokenType  string
	Expires    time.Time // of the access token; zero where the provider did not say
	State      ConnectionState
	Reason     string // why it needs re-authentication, cleaned
	Generation int64  // rises with every change of the tokens; bound into the ciphertexts
	Identity   string // the provider's security identity at the time of sealing
	Fence      int64  // rises with every lease
	LeaseUntil time.Time
	Created    time.Time
	Updated    time.Time
}

// FlowState is the state of a consent session.
type FlowState string

// Values of FlowState. The only steps are created → code_held → redeeming → redeemed, redeeming → code_held, from each
// of the first three to failed, and from the first two to redeemed where another flow has made the connection. A flow
// past its expiry is expired whatever its row says.
const (
	FlowCreated   FlowState = "created"
	FlowCodeHeld  FlowState = "code_held"
	FlowRedeeming FlowState = "redeeming"
	FlowRedeemed  FlowState = "redeemed"
	FlowFailed    FlowState = "failed"
)

// Flow is one consent session.
type Flow struct {
	ID           string // SHA-256 of the session URI, hexadecimal: the URI itself is not stored
	Account      access.Account
	Workload     string // uid
	WorkloadName string
	Generation   int64  // of the workload identity
	Token        string // SHA-256 of the workload access token that opened it, hexadecimal
	User         string // user reference
	UserKind     string // "jwt" or "uid"
	Provider     string // uid
	ProviderName string
	Identity     string // the provider's security identity when the flow began
	Resources    []string
	Resource     string // as the connection's, and the next two
	Parameters   string
	ParamNames   []string
	SentNames    []string // of all custom parameters, in order
	Audiences    []string
	Scopes       []string // to ask the provider for
	Requested    []string // what the caller asked for: what the poll must be served with
	ReturnURL    string
	Force        bool         // a consent with another account than before may replace that one
	Session      vault.Sealed // the session URI, for the return URL
	Upstream     vault.Sealed // JSON object of the account that the connection was of when it began; empty where there was no connection
	CustomState  vault.Sealed // or empty
	CustomParams vault.Sealed // JSON object, or empty
	Code         vault.Sealed // while held
	Verifier     vault.Sealed // PKCE verifier of the visit whose code is held
	State        FlowState
	Reason       string // why it failed, cleaned
	Fence        int64  // of the redemption
	LeaseUntil   time.Time
	Connection   string // id of the connection, once redeemed
	Created      time.Time
	Expires      time.Time
}

// Visit is one opening of a flow's authorization URL: its own state, PKCE pair and cookie.
type Visit struct {
	State    string // SHA-256 of the state parameter, hexadecimal: primary key
	Flow     string // id of the flow
	Cookie   string // SHA-256 of the cookie, hexadecimal
	Verifier vault.Sealed
	Issuer   string // the issuer that the answer must name in iss, "" where the provider names none
	IssSent  bool   // the provider's metadata promises iss (RFC 9207 §3)
	Spent    bool
	Created  time.Time
}

// Attempt is the journal's entry of one use of a refresh token or code: written before the provider is called.
type Attempt struct {
	Account    access.Account
	Subject    string // id of the connection or of the flow
	Fence      int64  // with Subject the primary key
	Kind       string // "refresh" or "redeem"
	Generation int64  // of the tokens used
	Started    time.Time
	Finished   time.Time // zero while unknown
	Outcome    string    // "stored", "rejected", "not_sent", "unknown"
}

// Vendor is an entry of the catalogue: what a provider's maker does its own way.
type Vendor struct {
	Name   string // e.g. GoogleOauth2
	Config string // the member of oauth2ProviderConfigInput it uses

	// Fixed endpoints; empty where the tenant's own are given at creation (Tenant) or by the operator (custom).
	Issuer                string
	AuthorizationEndpoint string
	TokenEndpoint         string
	Tenant                bool

	// DefaultTenant stands for {tenantId} in the endpoints where the provider's configuration names no tenant.
	DefaultTenant string

	AuthMethod      AuthMethod        // how the client authenticates
	NoPKCE          bool              // the vendor refuses code_challenge
	NoScopes        bool              // tokens have no scopes: what one may do is chosen at the vendor, and not known here
	ScopeSeparator  string            // " " unless said otherwise
	AnswerSeparator string            // of scopes in answers, beside ScopeSeparator
	ScopeAliases    map[string]string // alias → canonical scope
	AuthorizeParams map[string]string // defaults for the authorization request, which custom parameters may change
	Presentation    []string          // parameters that change how the user is asked and not what comes of it, in exactly this spelling
	RefreshRotates  Rotation
	Revocation      string       // where tokens are revoked: relative to the token endpoint, or https, where {client_id} stands for the client's; "" for nowhere
	Revoke          RevokeRecipe // how, at Revocation
	Grants          Sharing      // whether revoking a token ends the other tokens of that user and client too
	MaxTokens       int          // refresh tokens of one grant: the vendor drops the oldest of more; 0 if that is not known

	// Resources is set if an access token is for one resource, which its scopes name, and a refresh token for all of them.
	Resources *ResourceRule

	// UserScopes is the parameter that asks for scopes of the user where scope asks for those of an installed
	// application (Slack). A scope that begins with this name and a colon is one of the user's.
	UserScopes   string
	TokenHeaders map[string]string // of token requests; {agent} and {client_id} stand for ours and the client's
	JSONBody     bool              // token requests are JSON
	FormAnswer   bool              // token answers may be form-encoded
	OKMember     string            // the boolean that says, whatever the status, whether it worked
	MessageName  string            // the member that describes an error; "" is error_description
	GrantErrors  []string          // codes or descriptions that mean what invalid_grant means
	TokenMember  string            // the object that holds the user's token where there is one; "" is the answer itself
	TokenTypes   []string          // values of token_type that mean Bearer here
	Attributes   []string          // members of the answer that callers need; a dot leads into an object

	// For people: how far the entry was checked ("documentation", "scripted" or "real"), what it does its own way and
	// where that was read, and whether the operator added it.
	Verified string
	Notes    []string
	Sources  []string
	Own      bool
}

// RevokeRecipe says how a vendor takes a revocation. The zero value is RFC 7009 §2.1, with either token.
type RevokeRecipe struct {
	Method     string     // POST or DELETE; "" is POST
	Client     AuthMethod // how the client authenticates; "" is as at the token endpoint
	Token      string     // the only kind that is taken, access_token or refresh_token; "" is either
	Bearer     bool       // the token authorizes the request (RFC 6750 §2.1), which then names no client and has no body
	Member     string     // the parameter that the token is in, with no hint beside it; "" is token and a token_type_hint
	JSON       bool       // the body is JSON, as it is with Vendor.JSONBody
	OKMember   string     // the boolean that says, with a status of success, whether it worked; "" where the status says it
	DeadStatus int        // the status that says that the token was dead already; 0 is none
	DeadMember string     // JSON Pointer (RFC 6901) to a refusal's code; "" is /error
	Dead       []string   // codes that say that the token was dead already; none is invalid_token
}

// Rotation says what a provider does to a refresh token that is used.
type Rotation string

// Values of Rotation.
const (
	RotationUnknown Rotation = "unknown" // treated as RotationStrict
	RotationNone    Rotation = "none"    // the same token goes on: a retry is safe
	RotationStrict  Rotation = "strict"  // a second use is a replay
)
