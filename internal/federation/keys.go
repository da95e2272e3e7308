package federation

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/keyring"
)

// keys are the keys of one issuer. bundle is nil for an OIDC issuer.
type keys struct {
	set    jws.Set
	bundle *jwtbundle.Bundle
}

// readKeys reads a JWK set document. Of a trust domain's bundle only keys with the use jwt-svid count: the others are
// of certificates, and a key must not do for both (SPIFFE Trust Domain and Bundle §4.2.2).
func readKeys(i keyring.Issuer, doc []byte) (keys, error) {
	if !strings.HasPrefix(i.URL, spiffeScheme) {
		set, err := jws.ParseSet(doc)
		return keys{set: set}, err
	}
	td, err := spiffeid.TrustDomainFromString(i.URL)
	if err != nil {
		return keys{}, err
	}
	if doc, err = svidKeys(doc); err != nil {
		return keys{}, err
	}
	k := keys{}
	if k.set, err = jws.ParseSet(doc); err != nil {
		return keys{}, err
	}
	if k.bundle, err = jwtbundle.Parse(td, doc); err != nil {
		return keys{}, errors.New("it is no bundle of a trust domain: each key needs a kid")
	}
	return k, nil
}

// svidKeys returns the document with its keys for JWT-SVIDs only, as keys for signatures.
func svidKeys(doc []byte) ([]byte, error) {
	if len(doc) > 1<<20 {
		return nil, errors.New("it is too long")
	}
	var bundle map[string]json.RawMessage // a map, because names in it are compared as they are
	var all, chosen []map[string]json.RawMessage
	if json.Unmarshal(doc, &bundle) != nil || json.Unmarshal(bundle["keys"], &all) != nil {
		return nil, errors.New("it is no JSON object with a list of keys")
	}
	for _, k := range all {
		if string(k["use"]) == `"jwt-svid"` {
			delete(k, "use")
			chosen = append(chosen, k)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("it has no key with the use jwt-svid")
	}
	return json.Marshal(map[string]any{"keys": chosen})
}

// verify checks the token's signature: strictly, and for a JWT-SVID also as the SPIFFE project's own library does,
// which knows the algorithms, the types and the form of ids.
func (k keys) verify(i Issuer, p presented) error {
	if err := p.Verify(k.set); err != nil {
		return err
	}
	if i.Kind != SPIFFE {
		return nil
	}
	if k.bundle == nil {
		return fault.New(fault.Unauthenticated, "the trust domain has no bundle")
	}
	// The library compares times with the system's clock, and so do we: ours was compared before.
	svid, err := jwtsvid.ParseAndValidate(p.text.Expose(), k.bundle, i.Audiences)
	if err != nil {
		return fault.Wrap(fault.Unauthenticated, err, "the token is no JWT-SVID of the trust domain: %s", clip(err.Error()))
	}
	if svid.ID.String() != p.subject || svid.ID.TrustDomain().IDString() != i.URL {
		return fault.New(fault.Unauthenticated, "the token's SPIFFE ID is not of the trust domain %s", i.URL)
	}
	return nil
}

// trustDomainOf returns the trust domain of a SPIFFE ID as spiffe://name, or "" for any other subject.
func trustDomainOf(subject string) string {
	id, err := spiffeid.FromString(subject)
	if err != nil || id.String() != subject {
		return ""
	}
	return id.TrustDomain().IDString()
}
