package consent_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/secret"
)

// A provider that fetches our keys finds the public ones, and nothing at any other address.
func TestClientKeysArePublished(t *testing.T) {
	w := newWorld(t, false)
	spec := w.spec()
	spec.Name, spec.AuthMethod, spec.Secret = "keyed", broker.AuthPrivateKeyJWT, secret.Text{}
	p, err := w.broker.CreateProvider(t.Context(), w.root, spec)
	must(t, err)
	got := w.get(w.broker.ClientKeysURL(p))
	if got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("got %d %v", got.StatusCode, got.Header)
	}
	if !strings.HasPrefix(got.body, `{"keys":[{`) || !strings.Contains(got.body, `"kty":"EC"`) || strings.Contains(got.body, `"d":`) {
		t.Errorf("got %s", got.body)
	}
	secretive, err := w.broker.Provider(t.Context(), w.root, "cal")
	must(t, err)
	for _, address := range []string{w.broker.ClientKeysURL(secretive), w.url + "/identities/oauth2/jwks/nobody"} {
		if got := w.get(address); got.StatusCode != http.StatusNotFound || got.body != "" || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d %q", address, got.StatusCode, got.body)
		}
	}
	if got := w.do(http.MethodPost, w.broker.ClientKeysURL(p)); got.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d", got.StatusCode)
	}
}
