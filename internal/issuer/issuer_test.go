package issuer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/issuer"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/signing"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/store/storetest"
	"github.com/tabard-id/tabard/internal/vault"
)

// database is what each test gets a copy of.
var database storetest.Template

const publicURL = "https://tabard.example.com"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve is the handler over a real signing service. The vault is returned so that a test can close it.
func serve(t *testing.T) (http.Handler, *signing.Service, *vault.Vault, *bytes.Buffer) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{SQLitePath: database.New(t)})
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	file := filepath.Join(t.TempDir(), "key")
	must(t, kms.CreateFile(file))
	wrapper, err := kms.OpenFile(file)
	must(t, err)
	v, err := vault.New(vault.Config{Store: db, Wrapper: wrapper, Region: "us-east-1"})
	must(t, err)
	t.Cleanup(v.Close)
	keys, err := signing.New(signing.Config{Store: db, Vault: v, Issuer: publicURL, Now: time.Now})
	must(t, err)
	log := &bytes.Buffer{}
	h, err := issuer.New(issuer.Config{Signing: keys, Exchange: &exchange.Service{Config: exchange.Config{Signing: keys}}, Accounts: served{}, Log: slog.New(slog.NewJSONHandler(log, nil))})
	must(t, err)
	return h, keys, v, log
}

func ask(h http.Handler, method, target string) *http.Response {
	r := httptest.NewRequest(method, "http://evil.example"+target, http.NoBody) // the Host header is the client's
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func TestMetadata(t *testing.T) {
	h, _, _, _ := serve(t)
	want := map[string]any{
		"issuer": publicURL, "jwks_uri": publicURL + "/oauth2/jwks", "response_types_supported": []any{"id_token"}, "subject_types_supported": []any{"public"},
		"id_token_signing_alg_values_supported": []any{"ES256"},
		"claims_supported":                      []any{"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "account"},
	}
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		wantDocument(t, h, path, want)
	}
}

// M09: each account's issuer has its own metadata, where OpenID Connect Discovery (§4, appended) and RFC 8414 (§3.1,
// inserted) look for it, and its own keys. An account that is not served has neither.
func TestM09_MetadataOfAnAccount(t *testing.T) {
	h, _, _, _ := serve(t)
	const issuerURL = publicURL + "/accounts/123456789012"
	want := map[string]any{
		"issuer": issuerURL, "jwks_uri": issuerURL + "/oauth2/jwks", "response_types_supported": []any{"id_token"}, "subject_types_supported": []any{"pairwise"},
		"id_token_signing_alg_values_supported": []any{"ES256"},
		"claims_supported":                      []any{"iss", "sub", "aud", "iat", "exp", "jti", "account", "client_id", "scope", "act", "auth_time", "assurance"},
		"token_endpoint":                        publicURL + "/oauth2/token", "introspection_endpoint": publicURL + "/oauth2/introspect", "revocation_endpoint": publicURL + "/oauth2/revoke",
		"grant_types_supported":                         []any{"urn:ietf:params:oauth:grant-type:token-exchange"},
		"token_endpoint_auth_methods_supported":         []any{"client_secret_basic"},
		"introspection_endpoint_auth_methods_supported": []any{"client_secret_basic"},
		"revocation_endpoint_auth_methods_supported":    []any{"client_secret_basic"},
	}
	for _, path := range []string{
		"/accounts/123456789012/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/accounts/123456789012",
		"/.well-known/openid-configuration/accounts/123456789012",
	} {
		wantDocument(t, h, path, want)
	}
	keys := func(account string) string {
		resp := ask(h, http.MethodGet, "/accounts/"+account+"/oauth2/jwks")
		doc, err := io.ReadAll(resp.Body)
		must(t, err)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("the keys of %s: got %d", account, resp.StatusCode)
		}
		return string(doc)
	}
	ours, theirs := keys("123456789012"), keys("210987654321")
	installation, err := io.ReadAll(ask(h, http.MethodGet, issuer.JWKSPath).Body)
	must(t, err)
	if ours == theirs || ours == string(installation) || keys("123456789012") != ours {
		t.Error("the issuers of two accounts and of the installation must have keys of their own")
	}
	for _, account := range []string{"999999999999", "1234", "12345678901a", "1234567890123", "..", "%2e%2e"} {
		for _, path := range []string{"/accounts/" + account + "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/accounts/" + account,
			"/accounts/" + account + "/oauth2/jwks"} {
			if resp := ask(h, http.MethodGet, path); resp.StatusCode == http.StatusOK || resp.Header.Get("Cache-Control") == "public, max-age=300" {
				t.Errorf("%s: got %d", path, resp.StatusCode)
			}
		}
	}
}

func wantDocument(t *testing.T, h http.Handler, path string, want map[string]any) {
	t.Helper()
	resp := ask(h, http.MethodGet, path)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("%s: got %d %v", path, resp.StatusCode, resp.Header)
	}
	var got map[string]any
	must(t, json.NewDecoder(resp.Body).Decode(&got))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// served knows two accounts.
type served struct{}

func (served) Served(_ context.Context, id access.Account) error {
	if id == "123456789012" || id == "210987654321" {
		return nil
	}
	return fault.New(fault.NotFound, "there is no such account")
}

func TestKeysVerifyWhatIsSigned(t *testing.T) {
	h, keys, _, log := serve(t)
	resp := ask(h, http.MethodGet, "/oauth2/jwks?a=hunter2")
	doc, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	set, err := jws.ParseSet(doc)
	must(t, err)
	text, err := keys.Sign(t.Context(), signing.Assertions, "JWT", map[string]any{"sub": "s", "exp": time.Now().Unix() + 60})
	must(t, err)
	token, err := jws.Parse("the token", text)
	must(t, err)
	must(t, token.Verify(set))
	if strings.Contains(string(doc), `"d"`) {
		t.Error("a private half is published")
	}
	if line := log.String(); !strings.Contains(line, `"route":"/oauth2/jwks"`) || strings.Contains(line, "hunter2") {
		t.Errorf("got the log line %s", line)
	}
}

func TestOnlyReading(t *testing.T) {
	h, _, _, _ := serve(t)
	for _, path := range []string{issuer.OpenIDPath, issuer.ServerPath, issuer.JWKSPath} {
		if resp := ask(h, http.MethodHead, path); resp.StatusCode != http.StatusOK {
			t.Errorf("HEAD %s: got %d", path, resp.StatusCode)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			resp := ask(h, method, path)
			if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: got %d %v", method, path, resp.StatusCode, resp.Header)
			}
		}
	}
}

// The endpoints take nothing but POST, and parameters from nowhere but the body.
func TestOnlyPosting(t *testing.T) {
	h, _, _, _ := serve(t)
	for _, path := range []string{issuer.TokenPath, issuer.IntrospectPath, issuer.RevokePath} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions} {
			resp := ask(h, method, path+"?token=hunter2")
			if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: got %d %v", method, path, resp.StatusCode, resp.Header)
			}
		}
	}
}

func TestNoKeysNow(t *testing.T) {
	h, _, v, log := serve(t)
	v.Close()
	resp := ask(h, http.MethodGet, "/oauth2/jwks")
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != http.StatusServiceUnavailable || len(body) != 0 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %q %v", resp.StatusCode, body, resp.Header)
	}
	if !strings.Contains(log.String(), "shutting down") {
		t.Errorf("the log does not say why: %s", log)
	}
	if resp := ask(h, http.MethodGet, "/.well-known/openid-configuration"); resp.StatusCode != http.StatusOK {
		t.Errorf("the metadata needs no key, and got %d", resp.StatusCode)
	}
}
