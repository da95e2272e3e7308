package oauthtest

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// SetClientKeys registers the client's JWK set: from now on it authenticates by private_key_jwt (RFC 7523) and in no
// other way, with assertions that are for this issuer alone, live five minutes at most and are used once.
func (s *Server) SetClientKeys(jwks []byte) error {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &set); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clientKeys = set.Keys
	return nil
}

// SetTrust makes the client the subject of an issuer whose JWK set it is: assertions are that issuer's (RFC 7521 §4.2),
// and the client id may be left out. Else it is as SetClientKeys.
func (s *Server) SetTrust(issuer, subject string, jwks []byte) error {
	if err := s.SetClientKeys(jwks); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trusted = [2]string{issuer, subject}
	return nil
}

// authenticLocked accepts the client.
func (s *Server) authenticLocked(r *http.Request) bool {
	if len(s.clientKeys) == 0 {
		return authentic(r)
	}
	return r.Header.Get("Authorization") == "" && !r.PostForm.Has("client_secret") && s.provenLocked(r.PostForm) == nil
}

// provenLocked says what is wrong with the form's assertion. The audience is one string, and the issuer: neither a list
// nor the token endpoint (draft-ietf-oauth-rfc7523bis).
func (s *Server) provenLocked(form url.Values) error {
	if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		return errors.New("no assertion")
	}
	signed, err := jose.ParseSignedCompact(form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS256})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.clientKeys, func(k jose.JSONWebKey) bool { return k.KeyID == signed.Signatures[0].Header.KeyID })
	if i < 0 {
		return errors.New("unknown key")
	}
	payload, err := signed.Verify(s.clientKeys[i].Key)
	if err != nil {
		return err
	}
	var c struct {
		Iss, Sub, Aud, Jti string // an aud that is a list does not decode
		Exp, Iat           int64
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return err
	}
	now := time.Now().Unix()
	who, id := [2]string{ClientID, ClientID}, form.Get("client_id")
	if s.trusted != [2]string{} {
		who = s.trusted
		if !form.Has("client_id") {
			id = ClientID
		}
	}
	switch {
	case c.Iss != who[0] || c.Sub != who[1] || id != ClientID:
		return errors.New("another client")
	case c.Aud != s.URL:
		return errors.New("another audience")
	case c.Exp <= now || c.Exp > now+300 || c.Iat > now+60:
		return errors.New("not now")
	case c.Jti == "" || s.assertions[c.Jti]:
		return errors.New("used")
	}
	s.assertions[c.Jti] = true
	return nil
}
