// Package federation lets workloads in without a secret of ours: a token that their platform gave them, of an issuer
// that an administrator trusts, stands for a principal of the account.
//
// Security argument: a workload is known only by a token that its issuer signed for us and for nobody else, that
// expires, and that a rule of the account maps to a principal. What the token gives is short: credentials for an hour
// at most, which are sealed into themselves, so that there is no table of them to steal. Whoever presents them, or the
// token itself, is checked against the rule, the issuer and the principal as they stand now, at most a second old. No
// rule leads to the role root. Whoever is turned away learns only what his own token says; the trail and the log have
// the reason.
package federation

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Kind says how an issuer's tokens are read.
type Kind string

// The kinds of issuers.
const (
	OIDC   Kind = "OIDC"   // a URL that tokens have in iss: Kubernetes, AWS, GitHub, any OIDC provider
	SPIFFE Kind = "SPIFFE" // a trust domain, spiffe://name, that tokens have in sub (SPIFFE JWT-SVID §3.1)
)

// Issuer is somebody whose tokens name workloads.
type Issuer struct {
	Account        access.Account
	URL            string // compared byte for byte with iss; or spiffe://trust-domain
	UID            string // another one each time it is created
	Kind           Kind
	Audiences      []string // a token must be for one of them
	JWKSURI        string   // "" means by discovery from URL, which a trust domain does not have
	JWKS           []byte   // a JWK set document given by an administrator, instead of a URI
	OtherAudiences bool     // a token may be for others too, who could then present it here
	Disabled       bool     // by DisableTrustedIssuer; set by Issuers
	Created        time.Time
}

// Rule maps the tokens of one issuer that fit it to a principal.
type Rule struct {
	Account   access.Account
	ID        string
	Issuer    string // URL of the issuer
	Subject   string // the claim sub, or a pattern (*)
	Claims    map[string]string
	Principal access.PrincipalID
	Name      string // of the principal; set by reads
	Created   time.Time
}

// Grant is a rule with the principal that it leads to.
type Grant struct {
	Rule
	To identity.Principal
}

// Trust is an issuer with all its rules, in the order of their ids.
type Trust struct {
	Issuer
	Grants []Grant
}

// Store keeps issuers and rules. Every method is scoped to one account, and answers NotFound for what is another's.
type Store interface {
	IssuerStore
	RuleStore
	keyring.Pins
}

// IssuerStore keeps workload issuers.
type IssuerStore interface {
	// CreateWorkloadIssuer returns a Conflict fault where the URL exists in the account.
	CreateWorkloadIssuer(ctx context.Context, i Issuer) error
	// WorkloadIssuers returns up to limit issuers with URLs after the given one, ordered by URL.
	WorkloadIssuers(ctx context.Context, account access.Account, after string, limit int) ([]Issuer, error)
	// DeleteWorkloadIssuer deletes it with its rules, or returns NotFound.
	DeleteWorkloadIssuer(ctx context.Context, account access.Account, url string) error
	// WorkloadTrust is an issuer with its rules. It is recent: it may be one second old.
	WorkloadTrust(ctx context.Context, account access.Account, url string) (Trust, error)
	// Standing is that of identity.StandingStore.
	Standing(ctx context.Context, account access.Account, kind identity.StandingKind, key string) (identity.Standing, error)
}

// RuleStore keeps federation rules.
type RuleStore interface {
	// CreateFederationRule returns NotFound where the issuer or the principal does not exist.
	CreateFederationRule(ctx context.Context, r Rule) error
	// FederationRules returns up to limit rules with ids after the given one, ordered by id: of one issuer and one
	// principal's name, where they are not "".
	FederationRules(ctx context.Context, account access.Account, issuer, principal, after string, limit int) ([]Rule, error)
	// DeleteFederationRule returns NotFound where there is none.
	DeleteFederationRule(ctx context.Context, account access.Account, id string) error
	// PrincipalByName returns NotFound where there is none.
	PrincipalByName(ctx context.Context, account access.Account, name string) (identity.Principal, error)
}

// Vault is what this package needs of the vault. *vault.Vault has it.
type Vault interface {
	SealServer(ctx context.Context, ring vault.Ring, aad, plaintext []byte) ([]byte, error)
	OpenServer(ctx context.Context, ring vault.Ring, aad, ciphertext []byte) ([]byte, error)
}

// Reviewer asks an issuer itself about a token that was verified: whether what it was given to still exists. Which
// issuers can be asked, and where, is the server's configuration alone.
type Reviewer interface {
	// Reviews reports whether tokens of the issuer are to be reviewed.
	Reviews(issuer string) bool
	// Review returns nil where the issuer knows the token as one for one of the audiences that still lives, and whose
	// subject is the given one; an Unauthenticated fault with the reason where it does not; and an Unavailable fault
	// where it cannot be asked.
	Review(ctx context.Context, issuer string, token secret.Text, subject string, audiences []string) error
}

// Config is what a Service needs. Store, Vault, Guard, Keys, Metadata, Server and Account are required.
type Config struct {
	Store    Store
	Vault    Vault
	Guard    *access.Guard
	Keys     keyring.Source
	Metadata keyring.MetadataSource // what issuers' metadata leads to is pinned
	Reviewer Reviewer               // nil where no issuer is asked about its tokens
	Server   string                 // the server's public URL: session credentials of another one do not open
	Account  access.Account         // the account that is meant where a bearer of a token names none
	Now      func() time.Time
	Dev      bool // allow issuers with plain http on loopback
}

// Service answers which principal a workload's token stands for. Every method that takes a caller decides and records
// through the Guard itself.
type Service struct {
	Config
	keys   *keyring.Ring[keys]
	recent memory

	strangers strangers
}

// New checks the configuration and returns a Service. It contacts nobody.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Vault == nil || c.Guard == nil || c.Keys == nil || c.Metadata == nil || c.Server == "" || c.Account == "" {
		return nil, fault.New(fault.Internal, "federation needs a store, a vault, a guard, a key source, a source of metadata, the server's public URL and its account")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	keys := keyring.New(c.Keys, readKeys, c.Now).Pinned(c.Metadata, c.Store, keyring.WorkloadKeysPin)
	return &Service{Config: c, keys: keys}, nil
}

const maxPage = 100

// page cuts what was read with one item too many, and returns the cursor of the next page, or "" on the last one.
func page[T any](items []T, limit int, key func(T) string) ([]T, string) {
	if len(items) <= limit {
		return items, ""
	}
	return items[:limit], key(items[limit-1])
}

func pageSize(limit int) int {
	if limit <= 0 || limit > maxPage {
		return maxPage
	}
	return limit
}

// appendField appends s with its length before it, so that no two different lists of fields have the same bytes.
func appendField(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// clip bounds and cleans foreign text before it is quoted.
func clip(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// plainText reports whether s can be a part of a row: not empty, not long, without control characters.
func plainText(s string) bool {
	return s != "" && len(s) <= maxText && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || r == utf8.RuneError
	})
}

const maxText = 1024 // bytes of an audience, a subject, a claim's name or value
