package e2e_test

import (
	"maps"
	"slices"
	"strings"
)

// What the matrix asks providers for, and what docs/policy.md and docs/adr/0020 to 0022 say of that.

// The providers of the wide world, beside those of the small one. Their answers are the grantor's.
const (
	onTwin  = "twin"  // the name of an OAuth2 provider and of an API key
	onMute  = "mute"  // says nothing of the scopes that it grants
	onTells = "tells" // says which it grants, read where none are asked for
	onPlain = "plain" // of a vendor that has no scopes
	onSuite = "suite" // of a vendor whose tokens are for one API, and whose refresh tokens are for all
)

// Scopes at onSuite.
const (
	ofOne, ofTwo, ofThree = "https://one.example/read", "https://two.example/read", "https://three.example/read"
	forLater              = "offline_access" // of no API; with it comes a refresh token
)

// offer is what a provider is, as the world made it.
type offer struct {
	oauth2, key bool
	verified    bool   // it serves verified users only
	allows      string // the widening parameter that its tag allows
	scopeless   bool
	tells       string // what it grants, and says so, where it is asked for no scopes
	suite       bool
}

func offers(provider string) offer {
	return map[string]offer{
		onCalendar: {oauth2: true}, onDrive: {oauth2: true, verified: true, allows: "claims"}, onMaps: {key: true},
		onTwin: {oauth2: true, key: true}, onMute: {oauth2: true}, onTells: {oauth2: true, tells: "read"},
		onPlain: {oauth2: true, scopeless: true}, onSuite: {oauth2: true, suite: true},
	}[provider]
}

// granted are the scopes of a token that was asked for with some. What a provider says nothing of is what was asked for
// (RFC 6749 §5.1), and if nothing was, nobody knows.
func (p offer) granted(asked []string) (scopes []string, unknown bool) {
	if len(asked) == 0 && p.tells != "" {
		asked = []string{p.tells}
	}
	if p.unknown(asked) {
		return nil, true
	}
	return asked, false
}

func (p offer) unknown(scopes []string) bool { return p.scopeless || len(scopes) == 0 }

// resource is the API that scopes name, and two reports whether they are of more than one.
func (p offer) resource(scopes []string) (resource string, two bool) {
	if !p.suite {
		return "", false
	}
	for _, s := range scopes {
		if i := strings.LastIndexByte(s, '/'); i > 0 {
			two = two || resource != "" && resource != s[:i]
			resource = s[:i]
		}
	}
	return resource, two
}

// ask is a request for a provider's token, but for who asks.
type ask struct {
	provider, flow string
	scopes         []string
	params         string // custom parameters, as name=value with spaces or & between
}

func parametersOf(text string) map[string]string {
	all := map[string]string{}
	for _, one := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '&' }) {
		name, value, _ := strings.Cut(one, "=")
		all[name] = value
	}
	return all
}

// names are the names of the custom parameters as policies read them: in lower case, and with _ for a dot.
func names(params string) (all []string) {
	for name := range parametersOf(params) {
		all = append(all, strings.ReplaceAll(strings.ToLower(name), ".", "_"))
	}
	return all
}

// widens reports whether a parameter is one of those that the documents name: in any case, and with dots, hyphens or
// nothing for underscores.
func widens(name string) bool {
	for _, w := range []string{"authorization_details", "claims", "requested_token_type", "optional_scope", "include_granted_scopes", "user_scope"} {
		if strings.NewReplacer("_", "", "-", "", ".", "").Replace(strings.ToLower(name)) == strings.ReplaceAll(w, "_", "") {
			return true
		}
	}
	return false
}

// refused reports whether the custom parameters can widen the token, and the provider does not allow it.
func (q ask) refused() bool {
	for name := range parametersOf(q.params) {
		if widens(name) && name != offers(q.provider).allows {
			return true
		}
	}
	return false
}

// naming are those of the custom parameters that name the token: all but what the catalogue, and the tag of each
// provider here (label), say is presentation.
func (q ask) naming() string {
	params := parametersOf(q.params)
	maps.DeleteFunc(params, func(name, _ string) bool { return name == "prompt" || name == "display" || name == "label" })
	var all []string
	for name, value := range params {
		all = append(all, name+"="+value)
	}
	slices.Sort(all)
	return strings.Join(all, "&")
}

// place is where the token that is asked for is stored: everything that decides which one it is.
func (q ask) place(account, agent, user string) place {
	at := spot(account, agent, user, q.provider)
	at.resource, _ = offers(q.provider).resource(q.scopes)
	at.params = q.naming()
	if q.flow == "M2M" {
		at.user, at.scopes = byNobody, strings.Join(q.scopes, " ")
	}
	return at
}

// input is the request with the token.
func (m *matrix) input(t *wat, q ask) map[string]any {
	scopes := q.scopes
	if scopes == nil {
		scopes = []string{}
	}
	in := m.tokenInput(t, q.provider, q.flow, scopes, "")
	if q.params != "" {
		in["customParameters"] = parametersOf(q.params)
	}
	return in
}
