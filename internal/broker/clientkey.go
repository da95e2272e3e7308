package broker

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

const (
	// assertionLife is how long an assertion is good. It is sent at once; the rest is for clocks that differ. Providers
	// may refuse more than five minutes.
	assertionLife = 3 * time.Minute

	defaultAssertionAlg = "ES256"
)

// Assertion is what an administrator says of the assertions of private_key_jwt (RFC 7523 §3).
type Assertion struct {
	Algorithm string                 // ES256, RS256 or PS256; "" for what is there, or ES256
	Header    map[string]secret.Text // further members of the header; kid replaces ours
	Claims    map[string]secret.Text // further claims; aud replaces the issuer
}

// clientKey is what is sealed as a provider's private key.
type clientKey struct {
	Key    json.RawMessage   `json:"key"` // a JWK
	Header map[string]string `json:"header,omitempty"`
	Claims map[string]string `json:"claims,omitempty"`
}

// sealKey gives p the key that its client authentication needs, or none. A key serves one provider under one security
// identity: where endpoints, issuer or client id change, a new one is made, so that no assertion of the old one is
// worth anything at the new place (threat C13). A change of algorithm makes a new one too.
func (b *Broker) sealKey(ctx context.Context, p *Provider, old Provider, s ProviderSpec) error {
	p.PrivateKey, p.PublicKey = nil, ""
	if p.AuthMethod != AuthPrivateKeyJWT {
		if s.Assertion != nil {
			return s.keyField("privateKeyJwtConfig", "is for clientAuthenticationMethod PRIVATE_KEY_JWT")
		}
		return nil
	}
	keep := old.AuthMethod == AuthPrivateKeyJWT && old.Identity == p.Identity && len(old.PrivateKey) > 0
	if keep && s.Assertion == nil {
		p.PrivateKey, p.PublicKey = old.PrivateKey, old.PublicKey
		return nil
	}
	a := Assertion{Algorithm: old.KeyAlgorithm()}
	if s.Assertion != nil {
		a = *s.Assertion
	}
	if err := a.check(s); err != nil {
		return err
	}
	var key jws.Key
	var err error
	if keep {
		if key, _, err = b.openKey(ctx, old); err != nil {
			return err
		}
		keep = a.Algorithm == "" || a.Algorithm == key.Algorithm()
	}
	if !keep {
		if a.Algorithm == "" {
			a.Algorithm = defaultAssertionAlg
		}
		if key, err = jws.NewKey(a.Algorithm); err != nil {
			return s.keyField("privateKeyJwtConfig.signingAlgorithm", "must be ES256, RS256 or PS256")
		}
	}
	return b.storeKey(ctx, p, key, a)
}

// storeKey seals the key with what its assertions say besides.
func (b *Broker) storeKey(ctx context.Context, p *Provider, key jws.Key, a Assertion) error {
	private, err := key.Private()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a key for provider %s cannot be written", p.Name)
	}
	doc, err := json.Marshal(clientKey{Key: json.RawMessage(private.Expose()), Header: exposed(a.Header), Claims: exposed(a.Claims)})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a key for provider %s cannot be written", p.Name)
	}
	if p.PublicKey, err = key.Public(); err != nil {
		return fault.Wrap(fault.Internal, err, "a key for provider %s cannot be written", p.Name)
	}
	p.PrivateKey, err = b.vault.Seal(ctx, p.keyRef(), secret.New(string(doc)))
	return err
}

// check refuses what would change who the assertion is from, what it is good for, or how it is read; in any case,
// because there are parsers that do not tell it apart.
func (a Assertion) check(s ProviderSpec) error {
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		if jws.ReservedHeader(strings.ToLower(name)) {
			return s.keyField("privateKeyJwtConfig.additionalHeaderClaims", "cannot set %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Claims)) {
		lower := strings.ToLower(name)
		if slices.Contains([]string{"iss", "sub", "jti", "exp", "iat", "nbf"}, lower) || lower == "aud" && name != lower {
			return s.keyField("privateKeyJwtConfig.additionalPayloadClaims", "cannot set %s", name)
		}
	}
	return nil
}

func (s ProviderSpec) keyField(name, format string, args ...any) error {
	return fault.Field("oauth2ProviderConfigInput."+s.Member+"."+name, format, args...)
}

func exposed(in map[string]secret.Text) map[string]string {
	out := make(map[string]string, len(in))
	for name, value := range in {
		out[name] = value.Expose()
	}
	return out
}

func hidden(in map[string]string) map[string]secret.Text {
	out := make(map[string]secret.Text, len(in))
	for name, value := range in {
		out[name] = secret.New(value)
	}
	return out
}

func (p Provider) keyRef() vault.Ref {
	return vault.Ref{Account: p.Account, Table: "providers", Column: "private_key", Key: p.UID, Provider: p.UID, Identity: p.Identity}
}

func (b *Broker) openKey(ctx context.Context, p Provider) (jws.Key, Assertion, error) {
	text, err := b.vault.Open(ctx, p.keyRef(), p.PrivateKey)
	if err != nil {
		return jws.Key{}, Assertion{}, err
	}
	var k clientKey
	if err := json.Unmarshal([]byte(text.Expose()), &k); err != nil {
		return jws.Key{}, Assertion{}, fault.New(fault.Internal, "the key of provider %s cannot be read", p.Name)
	}
	key, err := jws.ParseKey(secret.New(string(k.Key)))
	if err != nil {
		return jws.Key{}, Assertion{}, fault.Wrap(fault.Internal, err, "the key of provider %s cannot be read", p.Name)
	}
	return key, Assertion{Algorithm: key.Algorithm(), Header: hidden(k.Header), Claims: hidden(k.Claims)}, nil
}

// assertion authenticates us to the provider in one request (RFC 7523 §3). Its audience is the issuer alone, as one
// string, and never the token endpoint: metadata can name another server's endpoint, and the assertion would be good
// there (draft-ietf-oauth-rfc7523bis, threat C13).
func (b *Broker) assertion(ctx context.Context, p Provider, e Endpoints) (secret.Text, error) {
	key, a, err := b.openKey(ctx, p)
	if err != nil {
		return secret.Text{}, err
	}
	now := b.now()
	claims := map[string]any{"aud": e.Issuer}
	for name, value := range a.Claims {
		claims[name] = value.Expose()
	}
	if claims["aud"] == "" {
		return secret.Text{}, fault.New(fault.Invalid, "provider %s has no issuer, which the assertion must name", p.Name)
	}
	maps.Copy(claims, map[string]any{
		"iss": p.ClientID, "sub": p.ClientID, "jti": random(16), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	signed, err := key.Sign(a.Header, claims)
	if err != nil {
		return secret.Text{}, fault.Wrap(fault.Internal, err, "the assertion for provider %s cannot be signed", p.Name)
	}
	return signed, nil
}

// ClientKeysURL is where the public key of AuthPrivateKeyJWT is published, to register at the provider.
func (b *Broker) ClientKeysURL(p Provider) string {
	return b.publicURL + "/identities/oauth2/jwks/" + p.CallbackID
}

// ClientKeys is the JWK set (RFC 7517 §5) of the provider with the callback id: public keys, for anybody. It returns
// NotFound where the provider is unknown or has no key, and Internal where the row's public half is not the one of the
// sealed private half: what is published here is what the provider believes. Unavailable and Denied are the key
// service's.
func (b *Broker) ClientKeys(ctx context.Context, callbackID string) ([]byte, error) {
	p, err := b.store.ProviderByCallback(ctx, callbackID)
	if err == nil && p.PublicKey == "" {
		err = fault.New(fault.NotFound, "no credential provider publishes keys at this address")
	}
	if err != nil {
		return nil, err
	}
	key, _, err := b.openKey(ctx, p)
	if err != nil {
		return nil, err
	}
	if public, err := key.Public(); err != nil || public != p.PublicKey {
		return nil, fault.Wrap(fault.Internal, err, "the public key of provider %s was changed in the database, and is not published", p.Name)
	}
	return []byte(`{"keys":[` + p.PublicKey + `]}`), nil
}

// KeyAlgorithm is the algorithm of the provider's assertions, "" where it has no key.
func (p Provider) KeyAlgorithm() string {
	var jwk struct {
		Alg string `json:"alg"`
	}
	_ = json.Unmarshal([]byte(p.PublicKey), &jwk) // "" is no JSON, and has no algorithm
	return jwk.Alg
}
