package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

// The three tokens of the story. None ever stands for another.
const (
	humanToken    = "human"
	workloadToken = "workload"
	providerToken = "provider"
)

// tokenView is what may be shown of a token: everything but the token.
type tokenView struct {
	Kind        string    `json:"kind"`
	Holder      string    `json:"holder"`
	Audience    string    `json:"audience"`
	Fingerprint string    `json:"fingerprint"` // of its SHA-256
	Expires     time.Time `json:"expires,omitzero"`
}

// Name is what people call the kind.
func (t tokenView) Name() string { return tokenName(t.Kind) }

// Mark is a shape for the kind, for eyes that do not tell the colours apart.
func (t tokenView) Mark() string { return tokenMark(t.Kind) }

func tokenName(kind string) string {
	switch kind {
	case humanToken:
		return "human access token"
	case workloadToken:
		return "workload access token"
	}
	return "calendar access token"
}

func tokenMark(kind string) string {
	switch kind {
	case humanToken:
		return "●"
	case workloadToken:
		return "■"
	}
	return "▲"
}

// humanView describes an access token of the identity provider. Its claims are read without a look at the signature,
// which is enough to show them and for nothing else.
func humanView(token string) tokenView {
	v := tokenView{Kind: humanToken, Holder: "web app", Fingerprint: secret.New(token).Fingerprint()}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return v
	}
	var claims struct {
		ClientID string `json:"client_id"`
		Exp      int64  `json:"exp"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return v
	}
	v.Audience, v.Expires = "client "+claims.ClientID, time.Unix(claims.Exp, 0)
	return v
}
