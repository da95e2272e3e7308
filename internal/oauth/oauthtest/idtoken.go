package oauthtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"

	"github.com/go-jose/go-jose/v4"
)

// SetIDToken has codes and refresh tokens answered with an ID token for the one client, in which claims replace the
// usual ones. nil, as at the start, issues none.
func (s *Server) SetIDToken(claims map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idToken = maps.Clone(claims)
}

// idTokenLocked is signed by a key that nobody knows: what came from the token endpoint itself needs no signature that
// can be checked (OpenID Connect Core §3.1.3.7, point 6).
func (s *Server) idTokenLocked() string {
	claims := map[string]any{"iss": s.URL, "aud": ClientID, "sub": "somebody"}
	maps.Copy(claims, s.idToken)
	doc, errDoc := json.Marshal(claims)
	key, errKey := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if errDoc != nil || errKey != nil {
		panic("oauthtest: the claims of a test are JSON, and a key can always be made")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		panic(err)
	}
	signed, err := signer.Sign(doc)
	if err != nil {
		panic(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}
