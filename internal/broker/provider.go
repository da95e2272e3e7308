package broker

import (
	"context"
	"crypto/sha1" // UUIDv5 is defined over SHA-1 (RFC 9562 §5.5); it names here, and secures nothing
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// ProviderSpec is what an administrator says of a provider. Member is the member of oauth2ProviderConfigInput that
// was used, and the prefix of the fields that errors name.
type ProviderSpec struct {
	Name       string
	Vendor     string
	Member     string
	ClientID   string
	Secret     secret.Text
	AuthMethod AuthMethod // "" for the vendor's own
	Assertion  *Assertion // for AuthPrivateKeyJWT; nil for the defaults, and at an update for what was (with a new key: its algorithm)

	DiscoveryURL          string
	Issuer                string
	AuthorizationEndpoint string
	TokenEndpoint         string
	ResponseTypes         []string
	TokenAuthMethods      []AuthMethod
	OnBehalfOf            *OnBehalfOf // nil where users' tokens are not exchanged
	Tenant                string      // for a vendor whose endpoints name one; "" for the vendor's default

	Tags map[string]string // at creation

	// Names of custom parameters, as Provider.Allowed and Provider.Presentation have them; nil leaves what is.
	Allowed, Presentation []string
}

// TagAssurance on a provider with the value "verified" refuses users that were only asserted.
const TagAssurance = identity.TagAssurance

// ARN returns the provider's ARN.
func (p Provider) ARN(region string) string {
	return fmt.Sprintf("arn:aws:bedrock-agentcore:%s:%s:token-vault/default/oauth2credentialprovider/%s", region, p.Account, p.Name)
}

// SecretARN returns the ARN under which the API names the client secret.
func (p Provider) SecretARN(region string) string {
	return fmt.Sprintf("arn:aws:secretsmanager:%s:%s:secret:bedrock-agentcore-identity!default/oauth2/%s-%s", region, p.Account, p.Name, p.SecretID)
}

// CallbackURL is the redirect URI to register at the provider. It is known before the provider is created.
func (b *Broker) CallbackURL(p Provider) string {
	return b.publicURL + "/identities/oauth2/callback/" + p.CallbackID
}

// CreateProvider stores a provider and its client secret. It contacts nobody.
func (b *Broker) CreateProvider(ctx context.Context, caller access.Caller, s ProviderSpec) (Provider, error) {
	p := Provider{Account: caller.Account, Name: s.Name}
	if err := b.guard.Permit(ctx, caller, access.CreateOauth2CredentialProvider, access.Facts{Provider: s.Name, Resource: p.ARN(b.region)}); err != nil {
		return Provider{}, err
	}
	if err := checkProviderTags(s.Tags); err != nil {
		return Provider{}, err
	}
	tags, err := settled(s.Tags, s)
	if err != nil {
		return Provider{}, err
	}
	if p, err = b.describe(p, s); err != nil {
		return Provider{}, err
	}
	if err := requireSecret(p, s); err != nil {
		return Provider{}, err
	}
	p.UID = "cp_" + random(15)
	p.CallbackID = uuidV5(p.ARN(b.region))
	p.SecretID = secretSuffix()
	p.Tags = tags
	p.Version = 1
	p.Created = b.now()
	p.Updated = p.Created
	if p.Secret, err = b.vault.Seal(ctx, p.secretRef(), s.Secret); err != nil {
		return Provider{}, err
	}
	if err := b.sealKey(ctx, &p, Provider{}, s); err != nil {
		return Provider{}, err
	}
	if err := b.store.CreateProvider(ctx, p); err != nil {
		if fault.CodeOf(err) == fault.Conflict {
			return Provider{}, fault.New(fault.Conflict, "Credential provider with name: %s already exists", s.Name)
		}
		return Provider{}, err
	}
	return p, nil
}

// Provider returns one provider.
func (b *Broker) Provider(ctx context.Context, caller access.Caller, name string) (Provider, error) {
	if err := b.guard.Permit(ctx, caller, access.GetOauth2CredentialProvider, access.Facts{Provider: name}); err != nil {
		return Provider{}, err
	}
	return b.store.Provider(ctx, caller.Account, name)
}

// Providers returns up to limit providers with names after the given one, and the name to continue after, or "".
func (b *Broker) Providers(ctx context.Context, caller access.Caller, after string, limit int) ([]Provider, string, error) {
	if err := b.guard.Permit(ctx, caller, access.ListOauth2CredentialProviders, access.Facts{}); err != nil {
		return nil, "", err
	}
	list, err := b.store.Providers(ctx, caller.Account, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	if len(list) > limit {
		return list[:limit], list[limit-1].Name, nil
	}
	return list, "", nil
}

// UpdateProvider replaces the description of a provider. Where its security identity changes (issuer, endpoints,
// client id, client authentication), the client secret must come again, its connections need a new consent and its
// open flows die: nobody can redirect stored tokens by editing an endpoint (threat D01).
func (b *Broker) UpdateProvider(ctx context.Context, caller access.Caller, s ProviderSpec) (Provider, error) {
	if err := b.guard.Permit(ctx, caller, access.UpdateOauth2CredentialProvider, access.Facts{Provider: s.Name}); err != nil {
		return Provider{}, err
	}
	old, err := b.store.Provider(ctx, caller.Account, s.Name)
	if err != nil {
		return Provider{}, err
	}
	if old.Vendor != s.Vendor {
		return Provider{}, fault.Field("credentialProviderVendor", "is %s and cannot become %s: create another provider", old.Vendor, s.Vendor)
	}
	p, err := b.describe(old, s)
	if err != nil {
		return Provider{}, err
	}
	if p.Tags, err = settled(old.Tags, s); err != nil {
		return Provider{}, err
	}
	changed := p.Identity != old.Identity
	if s.Secret.IsZero() && (changed || len(old.Secret) == 0) {
		if err := requireSecret(p, s); err != nil {
			return Provider{}, err
		}
	}
	if changed || !s.Secret.IsZero() {
		p.Pinned, p.PinnedAuthorization = "", "" // an administrator vouched for the endpoints by bringing the secret
		if p.Secret, err = b.vault.Seal(ctx, p.secretRef(), s.Secret); err != nil {
			return Provider{}, err
		}
	}
	if err := b.sealKey(ctx, &p, old, s); err != nil {
		return Provider{}, err
	}
	p.Version = old.Version + 1
	p.Updated = b.now()
	if err := b.store.SwapProvider(ctx, p, old.Version); err != nil {
		if fault.CodeOf(err) == fault.Conflict {
			return Provider{}, fault.Wrap(fault.Conflict, err, "provider %s was changed meanwhile: read it and try again", s.Name)
		}
		return Provider{}, err
	}
	return p, nil
}

// DeleteProvider deletes a provider with every connection and open flow it has.
func (b *Broker) DeleteProvider(ctx context.Context, caller access.Caller, name string) error {
	if err := b.guard.Permit(ctx, caller, access.DeleteOauth2CredentialProvider, access.Facts{Provider: name}); err != nil {
		return err
	}
	return b.store.DeleteProvider(ctx, caller.Account, name)
}

// describe fills what the specification says into p, from the vendor's entry where it says nothing.
func (b *Broker) describe(p Provider, s ProviderSpec) (Provider, error) {
	v, ok := b.catalogue.Vendor(s.Vendor)
	if !ok {
		return p, fault.Field("credentialProviderVendor", "%s is not offered by this server: use CustomOauth2 with the provider's endpoints", s.Vendor)
	}
	if s.Member != v.Config {
		return p, fault.Field("oauth2ProviderConfigInput", "vendor %s takes the member %s, not %s", s.Vendor, v.Config, s.Member)
	}
	field := func(name string) string { return "oauth2ProviderConfigInput." + s.Member + "." + name }
	p.Vendor, p.ClientID, p.AuthMethod = v.Name, s.ClientID, v.AuthMethod
	if s.AuthMethod != "" {
		p.AuthMethod = s.AuthMethod
	}
	if p.ClientID == "" && p.AuthMethod != AuthIDTokenJWT {
		return p, fault.Field(field("clientId"), "is needed")
	}
	if p.AuthMethod.Asserts() && !s.Secret.IsZero() {
		return p, fault.Field(field("clientSecret"), "is not used where the client authenticates by a signed JWT: leave it out")
	}
	p.DiscoveryURL, p.Issuer, p.AuthorizationEndpoint, p.TokenEndpoint = s.DiscoveryURL, s.Issuer, s.AuthorizationEndpoint, s.TokenEndpoint
	p.ResponseTypes, p.TokenAuthMethods = s.ResponseTypes, s.TokenAuthMethods
	if v.AuthorizationEndpoint != "" {
		if err := p.fix(v, s); err != nil {
			return p, err
		}
	}
	if s.AuthMethod == "" && len(s.TokenAuthMethods) > 0 && !slices.Contains(s.TokenAuthMethods, p.AuthMethod) {
		p.AuthMethod = s.TokenAuthMethods[0]
	}
	endpoints := []struct{ name, value string }{{"issuer", p.Issuer}, {"authorizationEndpoint", p.AuthorizationEndpoint}, {"tokenEndpoint", p.TokenEndpoint}}
	if p.DiscoveryURL != "" {
		endpoints = []struct{ name, value string }{{"oauthDiscovery.discoveryUrl", p.DiscoveryURL}}
	}
	for _, e := range endpoints {
		if e.value == "" {
			return p, fault.Field(field(e.name), "is needed for vendor %s", s.Vendor)
		}
		if why := b.checkEndpoint(e.value); why != "" {
			return p, fault.Field(field(e.name), "%s", why)
		}
	}
	if p.AuthMethod == AuthIDTokenJWT && !p.vouched() {
		return p, fault.Field(field("clientAuthenticationMethod"), "AWS_IAM_ID_TOKEN_JWT %s", notVouched)
	}
	p, err := p.exchanging(s.OnBehalfOf)
	p.Identity = p.securityIdentity()
	return p, err
}

// securityIdentity is the digest that what is sealed for the provider is bound to: where it is sent, and as what.
func (p Provider) securityIdentity() string {
	identity := digest("provider-1", p.DiscoveryURL, p.Issuer, p.AuthorizationEndpoint, p.TokenEndpoint, p.ClientID, string(p.AuthMethod))
	o := p.OnBehalfOf
	if o == nil || p.Vendor == microsoft && o.usual() {
		return identity
	}
	parts := []string{"provider-obo-1", identity, string(o.Grant), string(o.Actor), strconv.FormatBool(o.NoClient)}
	return digest(append(parts, o.ActorScopes...)...)
}

func requireSecret(p Provider, s ProviderSpec) error {
	if p.AuthMethod != AuthNone && !p.AuthMethod.Asserts() && s.Secret.IsZero() {
		return fault.Field("oauth2ProviderConfigInput."+s.Member+".clientSecret",
			"is needed for client authentication %s; it must come again whenever issuer, endpoints, client id or client authentication change", p.AuthMethod)
	}
	return nil
}

// checkEndpoint says what is wrong with an address at a provider, or "". Where the address leads to is the guarded
// dialer's business; this is what can be said of the text.
func (b *Broker) checkEndpoint(raw string) string {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || len(raw) > 2048:
		return "must be an absolute URL of at most 2048 characters"
	case u.User != nil:
		return "must not contain user information"
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return "must not contain a fragment"
	case b.identity.Owns(raw):
		return "is at this server itself, which is no provider of its own accounts"
	case u.Scheme == "https":
		return ""
	case u.Scheme == "http" && b.dev && identity.IsLoopback(u.Hostname()):
		return ""
	case u.Scheme == "http" && b.dev:
		return "must use https; plain http is for loopback addresses under --dev"
	}
	return "must use https; for a provider on this machine start the server with --dev"
}

func (p Provider) secretRef() vault.Ref {
	return vault.Ref{Account: p.Account, Table: "providers", Column: "secret", Key: p.UID, Provider: p.UID, Identity: p.Identity}
}

// client resolves what a call to the provider needs: its endpoints, and the client secret or an assertion in its place,
// which is for one request. For a provider with discovery, the host of the token endpoint is pinned at first use:
// metadata that later moves it elsewhere does not get the secret (threat E18).
func (b *Broker) client(ctx context.Context, p Provider) (Endpoints, secret.Text, error) {
	e, err := b.endpoints(ctx, p)
	if err != nil {
		return Endpoints{}, secret.Text{}, err
	}
	switch p.AuthMethod {
	case AuthPrivateKeyJWT:
		s, err := b.assertion(ctx, p, e)
		return e, s, err
	case AuthIDTokenJWT:
		s, err := b.idToken(ctx, p, e, p.ARN(b.region))
		return e, s, err
	}
	s, err := b.vault.Open(ctx, p.secretRef(), p.Secret)
	return e, s, err
}

// endpoints resolves the provider's addresses. It is the way to every one of them, so it is here that the row is held
// against its security identity: who edits an endpoint in the database and leaves the identity, to which the secrets
// are bound, gets nothing sent there (threat D01).
func (b *Broker) endpoints(ctx context.Context, p Provider) (Endpoints, error) {
	if p.Identity != p.securityIdentity() {
		return Endpoints{}, fault.New(fault.Internal, "provider %s was changed in the database, and not by this server: nothing is sent to it", p.Name)
	}
	e, err := b.upstream.Endpoints(ctx, p)
	if err != nil {
		return e, err
	}
	for _, address := range []string{e.Issuer, e.Authorization, e.Token, e.Revocation} {
		if b.identity.Owns(address) {
			return Endpoints{}, fault.New(fault.Denied, "provider %s is at this server itself, which is no provider of its own accounts", p.Name)
		}
	}
	if p.DiscoveryURL == "" {
		return e, nil
	}
	if err := unmoved(ctx, p, "token", e.Token, p.Pinned, b.store.PinProvider); err != nil {
		return Endpoints{}, err
	}
	return e, nil
}

// consentEndpoints is endpoints for a browser's step: the host of the authorization endpoint is pinned at first use
// too, so that metadata that later moves it elsewhere does not take users there (threat C15).
func (b *Broker) consentEndpoints(ctx context.Context, p Provider) (Endpoints, error) {
	e, err := b.endpoints(ctx, p)
	if err != nil || p.DiscoveryURL == "" || e.Authorization == "" {
		return e, err
	}
	if err := unmoved(ctx, p, "authorization", e.Authorization, p.PinnedAuthorization, b.store.PinAuthorization); err != nil {
		return Endpoints{}, err
	}
	return e, nil
}

// unmoved holds the endpoint that metadata names against the origin that was pinned, or pins it by pin where that is
// "".
func unmoved(ctx context.Context, p Provider, name, endpoint, pinned string, pin func(context.Context, access.Account, string, string) (string, error)) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the metadata of provider %s names no usable %s endpoint", p.Name, name)
	}
	origin := u.Scheme + "://" + u.Host
	if pinned == "" {
		if pinned, err = pin(ctx, p.Account, p.UID, origin); err != nil {
			return err
		}
	}
	if pinned != origin {
		accept := "updating the provider with its client secret"
		if p.AuthMethod == AuthNone || p.AuthMethod.Asserts() {
			accept = "deleting the provider and creating it again" // its stored tokens do not follow it
		}
		return fault.Wrap(fault.Denied, fmt.Errorf("from %s to %s", pinned, origin),
			"the metadata of provider %s moved its %s endpoint to another host: an administrator accepts that by %s", p.Name, name, accept)
	}
	return nil
}

// secretSuffix is the random end of a secret's ARN: 8 hexadecimal digits, a dash, 6 letters or digits.
func secretSuffix() string {
	sum := digest(random(16))
	return sum[:8] + "-" + strings.ToUpper(sum[8:14])
}

// uuidV5 names a text by a UUID in the URL namespace (RFC 9562 §5.5 and appendix A).
func uuidV5(name string) string {
	namespace, _ := hex.DecodeString("6ba7b8119dad11d180b400c04fd430c8")
	sum := sha1.Sum(append(namespace, name...))
	sum[6] = sum[6]&0x0f | 0x50
	sum[8] = sum[8]&0x3f | 0x80
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ConfigMember names the member of oauth2ProviderConfigInput that the provider's vendor uses.
func (b *Broker) ConfigMember(p Provider) string {
	v, _ := b.catalogue.Vendor(p.Vendor)
	return v.Config
}
