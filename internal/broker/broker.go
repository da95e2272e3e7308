package broker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
	"github.com/tabard-id/tabard/internal/vault"
)

const (
	// SessionLifetime is how long a consent session lives, as at AWS.
	SessionLifetime = 10 * time.Minute

	// minLeft is the life that a released token has at least, or it is refreshed first: the time of one call, and some
	// more.
	minLeft = 60 * time.Second

	// leaseTTL is longer than a provider may take (10 s) and the patience of the commit after it (commitPatience):
	// were it shorter, the next caller would take a holder that waits for the store to be dead, and ask the user again
	// although the new token is in our hands. A holder that is slower still loses nothing but that: the fence decides,
	// not the clock.
	leaseTTL = 40 * time.Second

	// maxVisits bounds how often one authorization URL may be opened (threat C29).
	maxVisits = 50

	// maxSessions bounds how many consent sessions of a workload identity and user are open at once (threat C29).
	maxSessions = 50

	// SessionPrefix begins every session URI (RFC 9126 §2.2 form).
	SessionPrefix = "urn:ietf:params:oauth:request_uri:"
)

// Config is what a Broker needs. Every field but Dev, Login and Home is required.
type Config struct {
	Store     Store
	Vault     *vault.Vault
	Identity  *identity.Service
	Guard     *access.Guard
	Signing   *signing.Service
	Upstream  Upstream
	Catalogue Catalogue
	Login     LoginUpstream // nil: no hosted consent
	PublicURL string        // where browsers reach this server, without a slash at the end
	Region    string
	Home      access.Account // the installation's own: its root is the operator; "" where there is none
	Now       func() time.Time
	Dev       bool // http and loopback endpoints, unregistered loopback return URLs
}

// Broker obtains and keeps providers' tokens. It is safe for concurrent use.
type Broker struct {
	store     Store
	vault     *vault.Vault
	identity  *identity.Service
	guard     *access.Guard
	signing   *signing.Service
	upstream  Upstream
	catalogue Catalogue
	login     LoginUpstream
	publicURL string
	region    string
	home      access.Account
	now       func() time.Time
	dev       bool
	paces     paces
}

// New returns a Broker.
func New(c Config) (*Broker, error) {
	if c.Store == nil || c.Vault == nil || c.Identity == nil || c.Guard == nil || c.Signing == nil || c.Upstream == nil || c.Catalogue == nil ||
		c.PublicURL == "" || c.Region == "" || c.Now == nil {
		return nil, errors.New("broker: an incomplete Config")
	}
	return &Broker{
		store: c.Store, vault: c.Vault, identity: c.Identity, guard: c.Guard, signing: c.Signing, upstream: c.Upstream,
		catalogue: c.Catalogue, login: c.Login, publicURL: c.PublicURL, region: c.Region, home: c.Home, now: c.Now, dev: c.Dev,
		paces: newPaces(c.Now),
	}, nil
}

// Sweep deletes consent sessions that ended an hour ago or earlier, and users' tokens that were kept and are no longer
// needed. It returns how many.
func (b *Broker) Sweep(ctx context.Context) (int, error) {
	flows, err := b.sweepFlows(ctx)
	assertions, errAssertions := b.identity.SweepAssertions(ctx)
	return flows + assertions, errors.Join(err, errAssertions)
}

func (b *Broker) sweepFlows(ctx context.Context) (int, error) {
	const batch = 1000 // one transaction's worth: other writers get their turn between two
	for total := 0; ; {
		n, err := b.store.SweepFlows(ctx, b.now().Add(-time.Hour), batch)
		total += n
		if err != nil || n < batch {
			return total, err
		}
	}
}

// digest hashes its parts in a length-prefixed form, so that no two different lists have the same digest.
func digest(parts ...string) string {
	h := sha256.New()
	var n [4]byte
	for _, p := range parts {
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func hashText(t secret.Text) string {
	sum := sha256.Sum256([]byte(t.Expose()))
	return hex.EncodeToString(sum[:])
}

// random returns n random bytes in base64url.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// sorted returns a sorted copy without duplicates.
func sorted(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

// ref says where a token of the connection is sealed.
func (c Connection) ref(column string) vault.Ref {
	return vault.Ref{
		Account: c.Account, Table: "connections", Column: column, Key: c.Key, Workload: c.Workload, User: c.User,
		Provider: c.Provider, Generation: c.Generation, Identity: c.Identity,
	}
}

// ref says where a value of the flow is sealed.
func (f Flow) ref(column string) vault.Ref {
	return vault.Ref{
		Account: f.Account, Table: "flows", Column: column, Key: f.ID, Workload: f.Workload, User: f.User,
		Provider: f.Provider, Generation: f.Generation, Identity: f.Identity,
	}
}

// verifierRef says where a visit's PKCE verifier is sealed.
func verifierRef(f Flow, state string) vault.Ref {
	r := f.ref("verifier")
	r.Table, r.Key = "visits", state
	return r
}

// cause classifies what a provider answered for the caller of the API.
func providerFault(p Provider, doing string, err error) error {
	up, ok := errors.AsType[*UpstreamError](err)
	if !ok {
		return err
	}
	said := up.said()
	if up.Status != 0 {
		said += ", status " + strconv.Itoa(up.Status)
	}
	switch up.Kind {
	case Rejected:
		return fault.Wrap(fault.Invalid, err, "provider %s refused %s%s", p.Name, doing, said)
	case Busy:
		return fault.Wrap(fault.Unavailable, err, "provider %s cannot answer %s now%s", p.Name, doing, said)
	case Unsent:
		return fault.Wrap(fault.Unavailable, err, "provider %s cannot be reached for %s", p.Name, doing)
	}
	return fault.Wrap(fault.Unavailable, err, "provider %s gave no usable answer to %s%s", p.Name, doing, said)
}

// said is the provider's own words, for the caller and the trail.
func (e *UpstreamError) said() string {
	s := ""
	if e.Code != "" {
		s = ": " + e.Code
		if e.Description != "" {
			s += " (" + e.Description + ")"
		}
	}
	return s
}
