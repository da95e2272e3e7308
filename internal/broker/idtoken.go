package broker

import (
	"cmp"
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/signing"
)

const (
	// idTokenLife is how long a JWT of ours is good at a provider. It is sent at once; the rest is for clocks that are
	// ahead.
	idTokenLife = 5 * time.Minute

	// idTokenEarly is for clocks that are behind: there are verifiers that allow for no difference.
	idTokenEarly = 30 * time.Second
)

// idToken signs a JWT for one request to the provider, where AWS has its token service sign one (adr/0010): the actor
// token of an exchange (RFC 8693 §2.1), or the assertion of AuthIDTokenJWT. Its audience is the provider's issuer
// alone, as one string, and never an endpoint (threat C13).
func (b *Broker) idToken(ctx context.Context, p Provider, e Endpoints, subject string) (secret.Text, error) {
	if e.Issuer == "" {
		return secret.Text{}, fault.New(fault.Invalid, "provider %s has no issuer, which the JWT must name", p.Name)
	}
	now := b.now()
	return b.signing.Sign(ctx, signing.Assertions, "JWT", map[string]any{
		"sub": subject, "aud": e.Issuer, "jti": random(16), "account": string(p.Account),
		"iat": now.Unix(), "nbf": now.Add(-idTokenEarly).Unix(), "exp": now.Add(idTokenLife).Unix(),
	})
}

const notVouched = "needs the provider's own metadata, or a tokenEndpoint at the issuer's own origin: " +
	"what is signed for the issuer goes nowhere else. Send oauthDiscovery.discoveryUrl"

// vouched reports whether it is the provider's issuer that names the token endpoint: in its own metadata, or by being
// there. The key of these JWTs is one for the installation, and a client of this kind has no secret that must come
// again when an endpoint is edited: without this, who may edit a provider could have a JWT for one issuer sent to
// another server, and use it.
func (p Provider) vouched() bool {
	if p.DiscoveryURL != "" {
		return true
	}
	issuer, err := url.Parse(p.Issuer)
	if err != nil {
		return false
	}
	token, err := url.Parse(p.TokenEndpoint)
	return err == nil && token.Scheme == issuer.Scheme && strings.EqualFold(token.Host, issuer.Host)
}

// Registration is what a provider needs to know of this server before it believes its JWTs. Subjects of actor tokens
// are the ARNs of workload identities.
type Registration struct {
	Issuer   string
	Subject  string // of client authentication; "" where the client authenticates another way
	Audience string // "" where only the provider's metadata says it
}

// advice is the registration in a sentence. found is the issuer that the metadata names.
func (r Registration) advice(found string) string {
	s := "only the provider can tell: trust the issuer " + r.Issuer
	if r.Subject != "" {
		s += " for the subject " + r.Subject
	}
	if audience := cmp.Or(found, r.Audience); audience != "" {
		s += " with the audience " + audience
	}
	return s
}

// Registration returns what to register at the provider; ok is false where it gets no JWT of this server's own.
func (b *Broker) Registration(p Provider) (r Registration, ok bool) {
	if p.AuthMethod == AuthIDTokenJWT {
		r.Subject = p.ARN(b.region)
	}
	r.Issuer, r.Audience = b.publicURL, p.Issuer
	return r, r.Subject != "" || p.OnBehalfOf != nil && p.OnBehalfOf.Actor == ActorIDToken
}
