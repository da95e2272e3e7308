package e2e_test

import (
	"crypto/rand"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/kms"
	"github.com/tabard-id/tabard/internal/secret"
)

// newBare is newWorld without a provider.
func newBare(t *testing.T, db string, change ...func(*daemon.Config)) *world {
	t.Helper()
	w := &world{t: t, dataDir: filepath.Join(t.TempDir(), "data"), db: db, logs: &buffer{}, out: &buffer{}}
	w.start(change...)
	return w
}

// D02: who has the database, and not the key, has nothing: the server itself does not start on it. The scan of what is
// in it is TestG01's.
func TestD02_TheDatabaseDoesNotOpenWithoutItsKey(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w := newBare(t, db)
		w.workload("calendar-agent")
		w.stop()
		other := filepath.Join(t.TempDir(), "key")
		if err := kms.CreateFile(other); err != nil {
			t.Fatal(err)
		}
		missing := filepath.Join(t.TempDir(), "key")
		for path, words := range map[string]string{other: "the key file is not the one that wrapped this vault", missing: missing + " does not exist"} {
			srv, err := daemon.New(t.Context(), daemon.Config{
				Addr: "127.0.0.1:0", DataDir: w.dataDir, DB: db, Dev: true, KeyFile: path, Out: io.Discard,
				RootAccessKeyID: rootID, RootSecretAccessKey: secret.New(rootSecret),
			})
			if err == nil {
				srv.Close()
				t.Fatalf("the data opens with the key file %s", path)
			}
			if !strings.Contains(err.Error(), words) {
				t.Errorf("with the key file %s: %q; want a sentence with %q", path, err, words)
			}
		}
		w.start() // the right key still opens it
		if r := w.call(root(), "GetWorkloadIdentity", map[string]any{"name": "calendar-agent"}); r.get("name") != "calendar-agent" {
			t.Errorf("after the start with the right key: %s", r.body)
		}
	})
}

// secretive finds members whose name says that a secret is in them.
var secretive = regexp.MustCompile(`(?i)secret|token|password|credential|private|apikey|accesskey|cookie|verifier|code|jwt|authorizationurl|sessionuri|passphrase|signature|material`)

// harmless are such members that hold none: names, addresses, times, cursors.
var harmless = regexp.MustCompile(`(?i)(Arn|Name|Id|Ids|Keys|Time|Source|Vendor|Vendors|Endpoint|Method|Methods|Type|Status|Url|Uri|nextToken|Providers|Config|Configuration|JsonKey|Scopes)$`)

// TestD09_NoAnswerHasRoomForASecret holds every output type of the API against the list of members that may carry one.
func TestD09_NoAnswerHasRoomForASecret(t *testing.T) {
	may := map[string]bool{
		"GetWorkloadAccessTokenResponse.workloadAccessToken": true, "GetWorkloadAccessTokenForJWTResponse.workloadAccessToken": true,
		"GetWorkloadAccessTokenForUserIdResponse.workloadAccessToken": true, "GetResourceOauth2TokenResponse.accessToken": true,
		"GetResourceOauth2TokenResponse.authorizationUrl": true, "CreatedAccessKey.secretAccessKey": true,
		"GetResourceOauth2TokenResponse.sessionUri": true, "GetResourceApiKeyResponse.apiKey": true,
		"GetWorkloadAccessTokenForDelegationResponse.workloadAccessToken": true, // minted, as by the three above
		"AuditCheckpoint.token": true, // a signed statement for everybody to keep: hashes, counts and times; nothing is bought with it
		// Operations of the models that this server does not offer; the types are AWS's.
		"CoinbaseCdpTokenResponseOutput.bearerToken": true, "CoinbaseCdpTokenResponseOutput.walletAuthToken": true,
		"StripePrivyTokenResponseOutput.appId": true, "StripePrivyTokenResponseOutput.authorizationSignature": true,
		"StripePrivyTokenResponseOutput.basicAuthToken": true, "PrivateKeyJwtConfig.additionalHeaderClaims": true, "PrivateKeyJwtConfig.additionalPayloadClaims": true,
	}
	structs := outputs(t)
	if len(structs) < 40 {
		t.Fatalf("only %d types of answers found", len(structs))
	}
	met := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(structs)) {
		for _, f := range structs[name] {
			member := name + "." + f.member
			if may[member] {
				met[member] = true
				continue
			}
			if f.sensitive {
				t.Errorf("%s is sensitive and not on the list of members that may carry a secret", member)
			}
			if f.text && secretive.MatchString(f.member) && !harmless.MatchString(f.member) {
				t.Errorf("%s sounds like a secret and is not on the list", member)
			}
		}
	}
	for member := range may {
		if !met[member] {
			t.Errorf("%s is on the list and in no answer", member)
		}
	}
}

// field is a member of a structure of package api.
type field struct {
	member, typ     string
	sensitive, text bool
}

// outputs returns the structures that answers are made of: every …Response and what it refers to.
func outputs(t *testing.T) map[string][]field {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(peer.Root(t), "api", "*_gen.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no types: %v", err)
	}
	all := map[string][]field{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range s.Fields.List {
				typ := elementOf(f.Type)
				all[spec.Name.Name] = append(all[spec.Name.Name], field{memberOf(f), typ, typ == "Sensitive", typ == "string" || typ == "Sensitive"})
			}
			return true
		})
	}
	out := map[string][]field{}
	var add func(name string)
	add = func(name string) {
		if _, done := out[name]; done || all[name] == nil {
			return
		}
		out[name] = all[name]
		for _, f := range all[name] {
			add(f.typ)
		}
	}
	for name := range all {
		if strings.HasSuffix(name, "Response") {
			add(name)
		}
	}
	return out
}

// elementOf names the type behind pointers, lists and maps.
func elementOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return elementOf(e.X)
	case *ast.ArrayType:
		return elementOf(e.Elt)
	case *ast.MapType:
		return elementOf(e.Value)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func memberOf(f *ast.Field) string {
	tag := strings.TrimPrefix(f.Tag.Value, "`json:\"")
	return tag[:strings.IndexAny(tag, ",\"")]
}

// TestD09_ReadingShowsNoSecret makes one of everything and calls every operation that shows something stored.
func TestD09_ReadingShowsNoSecret(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	w.workload("calendar-agent")
	tr := &trap{}
	tr.know(t, "root key", rootSecret)
	made := map[string]any{}
	for name, config := range map[string]any{
		"calendar": map[string]any{"customOauth2ProviderConfig": map[string]any{"oauthDiscovery": map[string]any{"discoveryUrl": "https://idp.example/.well-known/openid-configuration"}}},
		"google":   map[string]any{"googleOauth2ProviderConfig": map[string]any{}},
		"slack":    map[string]any{"slackOauth2ProviderConfig": map[string]any{}},
		"github":   map[string]any{"githubOauth2ProviderConfig": map[string]any{}},
		"okta": map[string]any{"includedOauth2ProviderConfig": map[string]any{"issuer": "https://idp.example", "authorizationEndpoint": "https://idp.example/a",
			"tokenEndpoint": "https://idp.example/t"}},
	} {
		clientSecret := rand.Text()
		tr.know(t, "client secret", clientSecret)
		for _, member := range config.(map[string]any) {
			member.(map[string]any)["clientId"], member.(map[string]any)["clientSecret"] = "client", clientSecret
		}
		vendor := map[string]string{"calendar": "CustomOauth2", "google": "GoogleOauth2", "slack": "SlackOauth2", "github": "GithubOauth2", "okta": "OktaOauth2"}[name]
		in := encode(t, map[string]any{"name": name, "credentialProviderVendor": vendor, "oauth2ProviderConfigInput": config})
		for _, op := range []string{"CreateOauth2CredentialProvider", "UpdateOauth2CredentialProvider", "GetOauth2CredentialProvider"} {
			if op == "GetOauth2CredentialProvider" {
				in = encode(t, map[string]any{"name": name})
			}
			r := w.post(root(), op, in)
			tr.saw(op+" "+name, r.body)
			if r.status/100 == 2 {
				made[op] = true
			}
		}
	}
	apiKey := rand.Text()
	tr.know(t, "API key", apiKey)
	for _, op := range []string{"CreateApiKeyCredentialProvider", "UpdateApiKeyCredentialProvider"} {
		tr.saw(op, w.call(root(), op, map[string]any{"name": "maps", "apiKey": apiKey}).body)
	}
	agent := w.principal("agent", "calendar-agent", "agent")
	tr.know(t, "access key", agent.Secret)
	for _, op := range []string{"DisableAccessKey", "EnableAccessKey"} {
		tr.saw(op, w.call(root(), op, map[string]any{"accessKeyId": agent.ID}).body)
	}
	for op, in := range reads() {
		tr.saw(op, w.call(root(), op, in).body)
	}
	if len(made) != 3 {
		t.Errorf("only %v worked", made)
	}
	for _, leak := range tr.leaks() {
		t.Error(leak)
	}
}

// TestD10_OnlyTheAccessTokenLeaves: no answer of a whole flow has a refresh token or an ID token, by name or by value.
func TestD10_OnlyTheAccessTokenLeaves(t *testing.T) {
	h := newHunt(t, daemon.SQLite)
	h.bookings(h.login(h.alice))
	if h.kinds()["refresh token"] < 2 {
		t.Fatalf("the provider gave no refresh tokens: %v", h.kinds())
	}
	member := regexp.MustCompile(`(?i)"(refresh|id)_?token"\s*:`)
	for _, s := range h.seen {
		if member.MatchString(s.text) {
			t.Errorf("%s has a member for a refresh or ID token: %.300s", s.where, s.text)
		}
	}
	for _, leak := range h.leaks() {
		t.Error(leak)
	}
}
