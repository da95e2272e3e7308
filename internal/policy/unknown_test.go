package policy_test

import (
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/policy"
)

// M02: scopes that nobody knows are not an empty list, which is within every list. A permit that reads them permits
// nothing, and a forbid that reads them forbids.
func TestM02_UnknownScopesAreInNoList(t *testing.T) {
	bot := access.Caller{Account: account, Principal: "p", Name: "bot", Roles: []access.Role{access.Agent}, Workloads: []string{"w"}}
	facts := access.Facts{Workload: "w", Provider: "google", Flow: "M2M"}
	const (
		whole   = `permit (principal == Tabard::Principal::"bot", action, resource);`
		ceiling = `permit (principal == Tabard::Principal::"bot", action, resource) when { ["a", "b"].containsAll(context.scopes) };`
		none    = `permit (principal == Tabard::Principal::"bot", action, resource) when { context.scopes.isEmpty() };`
		deny    = `forbid (principal, action, resource) when { context.scopes.containsAny(["mail"]) };`
	)
	for what, c := range map[string]struct {
		policies       []string
		unknown, allow bool
		says           string
	}{
		"a permit without a list":             {[]string{whole}, true, true, ""},
		"a ceiling":                           {[]string{ceiling}, true, false, "policy p0 permits those that it lists"},
		"a ceiling, no scopes but known":      {[]string{ceiling}, false, true, ""},
		"a permit of none":                    {[]string{none}, true, false, "policy p0 permits those that it lists"},
		"a forbid on scopes":                  {[]string{whole, deny}, true, false, "policy p1 forbids some"},
		"a forbid on scopes, known":           {[]string{whole, deny}, false, true, ""},
		"a forbid of another flow":            {[]string{whole, `forbid (principal, action, resource) when { context.flow == "X" && context.scopes.contains("mail") };`}, true, true, ""},
		"a forbid unless a scope is there":    {[]string{whole, `forbid (principal, action, resource) unless { context.scopes.contains("a") };`}, true, false, "policy p1 forbids some"},
		"a ceiling beside a whole permit":     {[]string{ceiling, whole}, true, true, ""},
		"a ceiling of another provider":       {[]string{`permit (principal, action, resource == Tabard::Provider::"x") when { context.scopes.contains("a") };`}, true, false, "tabard allow w google"},
		"a forbid that nothing is said about": {[]string{whole, `forbid (principal, action, resource) when { context.provider == "x" };`}, true, true, ""},
	} {
		m := &memory{}
		for i, text := range c.policies {
			m.put("p"+string(rune('0'+i)), text)
		}
		f := facts
		f.ScopesUnknown = c.unknown
		d, problems, err := engine(t, m).Explain(t.Context(), policy.Question{Caller: bot, Action: access.GetResourceOauth2Token, Facts: f})
		must(t, err)
		if d.Allow != c.allow || c.says != "" && !strings.Contains(d.Missing, c.says) || len(problems) > 0 {
			t.Errorf("%s: got %t by %s, missing %q, problems %v", what, d.Allow, d.By, d.Missing, problems)
		}
		if d.Unknown != (c.says != "" && !strings.HasPrefix(c.says, "tabard")) {
			t.Errorf("%s: got unknown %t", what, d.Unknown)
		}
	}
}

// M03: what is about an OAuth2 provider says nothing of the API key of the same name, and the reverse.
func TestM03_KindsOfProvidersAreToldApart(t *testing.T) {
	bot := access.Caller{Account: account, Principal: "p", Name: "bot", Roles: []access.Role{access.Agent}, Workloads: []string{"w"}}
	ask := func(a access.Action, policies ...string) bool {
		m := &memory{}
		for i, text := range policies {
			m.put("p"+string(rune('0'+i)), text)
		}
		d, err := engine(t, m).Decide(t.Context(), bot, a, access.Facts{Workload: "w", Provider: "google", Scopes: []string{"a"}})
		must(t, err)
		return d.Allow
	}
	const (
		oauth2  = `permit (principal, action in Tabard::Action::"release", resource == Tabard::Provider::"google");`
		key     = `permit (principal, action in Tabard::Action::"release", resource == Tabard::ApiKeyProvider::"google");`
		any     = `permit (principal, action in Tabard::Action::"release", resource);`
		inVault = `permit (principal, action in Tabard::Action::"release", resource in Tabard::Vault::"default");`
	)
	admin := access.Caller{Account: account, Principal: "a", Name: "admin", Roles: []access.Role{access.Admin}}
	removes := func(a access.Action, p string) bool {
		m := &memory{}
		m.put("p", p)
		d, err := engine(t, m).Decide(t.Context(), admin, a, access.Facts{Provider: "google"})
		must(t, err)
		return d.Allow
	}
	for kind, want := range map[string][2]bool{"Provider": {false, true}, "ApiKeyProvider": {true, false}} {
		text := `forbid (principal, action, resource == Tabard::` + kind + `::"google");`
		if got := [2]bool{removes(access.DeleteOauth2CredentialProvider, text), removes(access.DeleteAPIKeyCredentialProvider, text)}; got != want {
			t.Errorf("a forbid of the %s: administrators may delete the OAuth2 and the API-key provider: %v, want %v", kind, got, want)
		}
	}
	for _, c := range []struct {
		policies    []string
		oauth2, key bool
	}{
		{[]string{oauth2}, true, false}, {[]string{key}, false, true}, {[]string{any}, true, true}, {[]string{inVault}, true, true},
		{[]string{any, strings.Replace(oauth2, "permit", "forbid", 1)}, false, true}, {[]string{any, strings.Replace(key, "permit", "forbid", 1)}, true, false},
	} {
		if got := ask(access.GetResourceOauth2Token, c.policies...); got != c.oauth2 {
			t.Errorf("%v: the OAuth2 token: %t", c.policies, got)
		}
		if got := ask(access.GetResourceAPIKey, c.policies...); got != c.key {
			t.Errorf("%v: the API key: %t", c.policies, got)
		}
	}
}
