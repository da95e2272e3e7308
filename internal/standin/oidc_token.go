package standin

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
)

// keysKept is how many signing keys stay in the key set: the current one and the one before.
const keysKept = 2

// signingKey is one RS256 key; it implements op.SigningKey.
type signingKey struct {
	id      string
	private *rsa.PrivateKey
}

func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k *signingKey) Key() any                                    { return k.private }
func (k *signingKey) ID() string                                  { return k.id }

// publicKey is the half that the key set shows; it implements op.Key.
type publicKey struct{ *signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return k.private.Public() }

// RotateKey signs with a new key from now on. The previous key stays in the key set until the next rotation.
func (o *OIDC) RotateKey() error {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return fmt.Errorf("standin: signing key: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keys = append(o.keys, &signingKey{id: rand.Text(), private: private})
	if len(o.keys) > keysKept {
		o.keys = slices.Clone(o.keys[len(o.keys)-keysKept:])
	}
	return nil
}

func (o *OIDC) currentKey() *signingKey {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.keys[len(o.keys)-1]
}

// issuedToken is what the provider knows about an access token.
type issuedToken struct {
	id           string
	user         User
	client       string
	scopes       []string
	auth, issued time.Time
}

// record keeps t under a new id and returns the id. Tokens that expired are dropped on the way.
func (o *OIDC) record(t issuedToken) string {
	t.id, t.issued = uuid.NewString(), o.config.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, old := range o.issued {
		if !t.issued.Before(old.issued.Add(o.config.AccessTokenLifetime)) {
			delete(o.issued, id)
		}
	}
	o.issued[t.id] = t
	return t.id
}

// signAccessToken writes the JWT of a recorded token as Amazon Cognito writes it: the application is in client_id and
// there is no aud,
// https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html
func (o *OIDC) signAccessToken(id string) (string, error) {
	o.mu.Lock()
	t, ok := o.issued[id]
	o.mu.Unlock()
	if !ok {
		return "", errors.New("standin: no such token")
	}
	return o.sign(map[string]any{
		"iss": o.config.Issuer, "sub": t.user.Subject(), "client_id": t.client, "username": t.user.Name,
		"token_use": "access", "scope": strings.Join(t.scopes, " "), "version": 2, "jti": t.id,
		"auth_time": t.auth.Unix(), "iat": t.issued.Unix(), "exp": t.issued.Add(o.config.AccessTokenLifetime).Unix(),
	})
}

func (o *OIDC) sign(claims map[string]any) (string, error) {
	key := o.currentKey()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key.private, KeyID: key.id}}, nil)
	if err != nil {
		return "", fmt.Errorf("standin: signer: %w", err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("standin: claims: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("standin: signature: %w", err)
	}
	return signed.CompactSerialize()
}

// tokenMaker is the seam where the access token gets Cognito's shape. The library's own JWT always has an aud; but the
// text of an opaque token is whatever its op.Crypto makes of "id:subject", so that is where the JWT is written and
// read.
type tokenMaker struct{ *OIDC }

// Encrypt returns the access token for "id:subject", and a random authorization code for anything else: the code's
// meaning is kept by SaveAuthCode, so that it has none by itself.
func (m tokenMaker) Encrypt(plain string) (string, error) {
	id, _, ok := strings.Cut(plain, ":")
	if !ok {
		return rand.Text(), nil
	}
	return m.signAccessToken(id)
}

// Decrypt verifies an access token of ours and returns "id:subject". A revoked or expired token is refused.
func (m tokenMaker) Decrypt(token string) (string, error) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	keys := slices.Clone(m.keys)
	m.mu.Unlock()
	i := slices.IndexFunc(keys, func(k *signingKey) bool { return k.id == jws.Signatures[0].Header.KeyID })
	if i < 0 {
		return "", errors.New("unknown key")
	}
	payload, err := jws.Verify(keys[i].private.Public())
	if err != nil {
		return "", err
	}
	var claims struct{ Jti, Sub string }
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", err
	}
	m.mu.Lock()
	t, ok := m.issued[claims.Jti]
	m.mu.Unlock()
	if !ok || !m.config.Now().Before(t.issued.Add(m.config.AccessTokenLifetime)) {
		return "", errors.New("the token is revoked or expired")
	}
	return claims.Jti + ":" + claims.Sub, nil
}
