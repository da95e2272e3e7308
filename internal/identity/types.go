// Package identity knows who is who: principals that call the API, workload identities (agents), trusted issuers,
// users, and the workload access token that binds an agent to a user.
//
// Security argument: a user is known only by a token of an issuer that an administrator trusts, checked strictly, or
// by an assertion in a namespace of its own that no token can reach. A workload access token is sealed by a keyset
// that only this server can use, names the immutable uid and generation of the workload identity, and is never enough
// alone: the caller authenticates too and must be paired with that workload identity.
package identity

import (
	"context"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/vault"
)

// Principal is somebody who calls the API.
type Principal struct {
	Account   access.Account
	ID        access.PrincipalID // immutable
	Name      string             // unique in the account
	Roles     []access.Role
	Workloads []string // names or patterns (*) of workload identities it is paired with
	Disabled  bool
	Created   time.Time
}

// AccessKey is a key pair of a principal for SigV4.
type AccessKey struct {
	ID        string // unique in the whole server
	Account   access.Account
	Principal access.PrincipalID
	Owner     string       // name of the principal; set by reads
	Secret    vault.Sealed // under the server's access-key keyset
	Disabled  bool
	Version   int64 // changes whenever the row does
	Created   time.Time
	LastUsed  time.Time // to about a minute, zero for never
}

// Workload is a workload identity: an agent.
type Workload struct {
	Account    access.Account
	Name       string // unique among those that live
	UID        string // immutable; a recreated name gets another
	Generation int64  // rises when it is deleted or restored; tokens carry it
	ReturnURLs []string
	Tags       map[string]string
	Version    int64 // compare-and-set
	Created    time.Time
	Updated    time.Time
	Deleted    time.Time // zero while it lives
}

// TokenUse says which JWTs of an issuer name a user.
type TokenUse string

// Values of TokenUse.
const (
	UseAny    TokenUse = "any"
	UseAccess TokenUse = "access"
	UseID     TokenUse = "id"
)

// Issuer is an OIDC issuer whose tokens name users.
type Issuer struct {
	Account      access.Account
	URL          string // compared byte for byte with the claim iss
	Audiences    []string
	ClientIDs    []string
	TokenUse     TokenUse
	Workloads    []string          // patterns of workload identities it may be used for; empty means all
	Claims       map[string]string // claims that must have exactly this value
	SubjectClaim string            // "sub" by default; fixed at creation
	JWKSURI      string            // "" means by discovery from URL
	JWKS         []byte            // a JWK set document given by an administrator, instead of a URI
	UserInfo     bool              // the user's JWT may be kept to call the issuer's UserInfo endpoint
	PolicyClaims []string          // names of the claims of the user's JWT that policies may ask for

	BackchannelLogout bool // it tells of logouts (OpenID Connect Back-Channel Logout 1.0), and its tokens may live longer

	FromConfig bool // from the configuration file, and so read-only
	Created    time.Time
}

// UserKind separates the namespaces of users.
type UserKind string

// Values of UserKind.
const (
	NoUser  UserKind = ""
	JWTUser UserKind = "jwt" // proven by a token: issuer and subject
	UIDUser UserKind = "uid" // asserted by the caller: an opaque id in Subject
)

// User is the human an agent acts for.
type User struct {
	Kind    UserKind
	Issuer  string // JWTUser only
	Subject string
}

// Store keeps principals, keys, workload identities, issuers and users. Every method is scoped to one account, and
// answers NotFound for what is another's. Reads marked "recent" may be up to one second old.
type Store interface {
	PrincipalStore
	WorkloadStore
	IssuerStore
	LoginStore
	AssertionStore
	StandingStore
	DelegationStore
	LogoutStore
	PinStore
}

// PrincipalStore keeps principals and their access keys.
type PrincipalStore interface {
	// CreatePrincipal returns a Conflict fault where the name exists in the account.
	CreatePrincipal(ctx context.Context, p Principal) error
	// PrincipalByName returns NotFound where there is none.
	PrincipalByName(ctx context.Context, account access.Account, name string) (Principal, error)
	// Principals returns up to limit principals with names after the given one, ordered by name.
	Principals(ctx context.Context, account access.Account, after string, limit int) ([]Principal, error)
	SetPrincipalDisabled(ctx context.Context, account access.Account, name string, disabled bool) error

	// CreateAccessKey returns Conflict where the id exists. KeyAndPrincipal is recent, and takes no account: the id
	// names it. AccessKeys lists by id, of one principal or (with "") of all.
	CreateAccessKey(ctx context.Context, k AccessKey) error
	KeyAndPrincipal(ctx context.Context, id string) (AccessKey, Principal, error)
	AccessKeys(ctx context.Context, account access.Account, principal access.PrincipalID, after string, limit int) ([]AccessKey, error)
	// SetAccessKeyDisabled raises the key's version and returns the row.
	SetAccessKeyDisabled(ctx context.Context, account access.Account, id string, disabled bool) (AccessKey, error)
	// ReplaceAccessKeys adds k and disables every other enabled key of its principal, in one step. It returns the ids of
	// those, in order.
	ReplaceAccessKeys(ctx context.Context, k AccessKey) (disabled []string, err error)
	// KeysUsed notes the last uses of keys. A later use that is noted already stays; keys that are gone are skipped.
	KeysUsed(ctx context.Context, batch []Use) error
}

// WorkloadStore keeps workload identities.
type WorkloadStore interface {
	// CreateWorkload returns Conflict where a live one has the name.
	CreateWorkload(ctx context.Context, w Workload) error
	// Workload finds a live one by name; WorkloadByUID finds by uid, live or deleted. Both are recent.
	Workload(ctx context.Context, account access.Account, name string) (Workload, error)
	WorkloadByUID(ctx context.Context, account access.Account, uid string) (Workload, error)
	Workloads(ctx context.Context, account access.Account, after string, limit int) ([]Workload, error)
	// DeletedWorkload finds the one of that name that was deleted last.
	DeletedWorkload(ctx context.Context, account access.Account, name string) (Workload, error)
	// SwapWorkload replaces the row of w.UID where its version is still oldVersion, else returns Conflict. It is how
	// a workload identity is changed, deleted (Deleted set) and restored.
	SwapWorkload(ctx context.Context, w Workload, oldVersion int64) error
}

// IssuerStore keeps trusted issuers, and the sealed rows of users.
type IssuerStore interface {
	CreateIssuer(ctx context.Context, i Issuer) error
	// Issuer is recent.
	Issuer(ctx context.Context, account access.Account, url string) (Issuer, error)
	Issuers(ctx context.Context, account access.Account, after string, limit int) ([]Issuer, error)
	DeleteIssuer(ctx context.Context, account access.Account, url string) error
	// RememberUser stores who a user reference is, sealed; where the row exists it changes nothing.
	RememberUser(ctx context.Context, account access.Account, ref string, sealed vault.Sealed, at time.Time) error
}

// KeySource fetches the signing keys of an issuer through the guarded dialer.
type KeySource = keyring.Source
