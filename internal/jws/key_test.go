package jws_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestKeySignsWhatItsPublicHalfVerifies(t *testing.T) {
	for _, alg := range []string{"ES256", "RS256", "PS256"} {
		made, err := jws.NewKey(alg)
		must(t, err)
		private, err := made.Private()
		must(t, err)
		key, err := jws.ParseKey(private)
		must(t, err)
		if key.ID() == "" || key.ID() != made.ID() {
			t.Errorf("%s: got the id %q after %q", alg, key.ID(), made.ID())
		}
		public, err := key.Public()
		must(t, err)
		var jwk map[string]any
		must(t, json.Unmarshal([]byte(public), &jwk))
		if jwk["kid"] != key.ID() || jwk["alg"] != alg || jwk["use"] != "sig" {
			t.Errorf("%s: got the public key %v", alg, jwk)
		}
		for _, half := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			if _, ok := jwk[half]; ok {
				t.Errorf("%s: the public key has the private member %s", alg, half)
			}
		}
		text, err := key.Sign(map[string]secret.Text{"x5t#S256": secret.New("print")}, map[string]any{"sub": "client"})
		must(t, err)
		token, err := jws.Parse("the assertion", text)
		must(t, err)
		set, err := jws.ParseSet([]byte(`{"keys":[` + public + `]}`))
		must(t, err)
		must(t, token.Verify(set))
		if token.Type != "jwt" {
			t.Errorf("%s: got the type %q", alg, token.Type)
		}
		other, err := jws.NewKey("ES256")
		must(t, err)
		public, err = other.Public()
		must(t, err)
		set, err = jws.ParseSet([]byte(`{"keys":[` + public + `]}`))
		must(t, err)
		if token.Verify(set) == nil {
			t.Errorf("%s: another key verifies the signature", alg)
		}
	}
}

func TestKeyRefuses(t *testing.T) {
	for _, alg := range []string{"", "none", "HS256", "ES512"} {
		if _, err := jws.NewKey(alg); err == nil {
			t.Errorf("a key was made for %q", alg)
		}
	}
	key, err := jws.NewKey("ES256")
	must(t, err)
	for _, name := range []string{"alg", "typ", "crit", "b64"} {
		if _, err := key.Sign(map[string]secret.Text{name: secret.New("x")}, nil); err == nil {
			t.Errorf("the header %s was set", name)
		}
	}
	public, err := key.Public()
	must(t, err)
	for _, text := range []string{"", "secret-not-a-key", public, `{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}`} {
		if _, err := jws.ParseKey(secret.New(text)); err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %v, want an error that does not quote it", text, err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A token of one type is read as no other: what is signed for one thing must not pass for another (RFC 8725 §3.11).
func TestTypesAreToldApart(t *testing.T) {
	key, err := jws.NewKey("ES256")
	must(t, err)
	types := []string{"JWT", "at+jwt", "client-authentication+jwt"}
	for _, typ := range types {
		text, err := key.SignAs(typ, nil, map[string]any{"sub": "client"})
		must(t, err)
		for _, want := range types {
			token, err := jws.ParseTyped("the token", want, text)
			if (err == nil) != (typ == want) {
				t.Errorf("a token of type %s read as %s: %v", typ, want, err)
			}
			if err == nil && token.KeyID() != key.ID() {
				t.Errorf("got the key id %q, want %q", token.KeyID(), key.ID())
			}
		}
		if _, err := jws.Parse("the token", text); (err == nil) != (typ != "client-authentication+jwt") {
			t.Errorf("a token of type %s read as any: %v", typ, err)
		}
	}
	if _, err := key.SignAs("JWT", map[string]secret.Text{"typ": secret.New("at+jwt")}, nil); err == nil {
		t.Error("a header replaced the type")
	}
}
