package awsapi

import (
	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// assertionOf reads privateKeyJwtConfig, nil where it was not sent.
func assertionOf(in *api.CustomOauth2ProviderConfigInput) (*broker.Assertion, error) {
	c := in.PrivateKeyJWTConfig
	if c == nil {
		return nil, nil
	}
	if c.PrivateKeySource != nil {
		return nil, fault.Field("oauth2ProviderConfigInput.customOauth2ProviderConfig.privateKeyJwtConfig.privateKeySource",
			"keys in a key management service are not offered by this server yet: leave privateKeySource out, and a key is made here")
	}
	return &broker.Assertion{
		Algorithm: string(c.SigningAlgorithm), Header: hideAll(c.AdditionalHeaderClaims), Claims: hideAll(c.AdditionalPayloadClaims),
	}, nil
}

// assertionConfigOf tells the algorithm. The additional claims are marked as sensitive in the model, and do not come
// back, as a client secret does not.
func assertionConfigOf(p broker.Provider) *api.PrivateKeyJwtConfig {
	alg := p.KeyAlgorithm()
	if alg == "" {
		return nil
	}
	return &api.PrivateKeyJwtConfig{SigningAlgorithm: api.SigningAlgorithm(alg)}
}

func hideAll(in map[string]api.Sensitive) map[string]secret.Text {
	out := make(map[string]secret.Text, len(in))
	for name, value := range in {
		out[name] = hide(value)
	}
	return out
}
