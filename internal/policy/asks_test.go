package policy_test

import (
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/policy"
)

// M02: a statement that asks whether the scopes are known before it reads them says no less than one that does not ask.
func TestM02_HasScopesIsNoWayAround(t *testing.T) {
	bot := access.Caller{Account: account, Principal: "p", Name: "bot", Roles: []access.Role{access.Agent}, Workloads: []string{"w"}}
	facts := access.Facts{Workload: "w", Provider: "google", Flow: "M2M"}
	const whole = `permit (principal == Tabard::Principal::"bot", action, resource);`
	const forbid, permit = `forbid (principal, action, resource) `, `permit (principal == Tabard::Principal::"bot", action, resource) `
	for what, c := range map[string]struct {
		policies []string
		allow    bool // if the scopes are not known
		allowed  bool // and if there are none
	}{
		"a forbid":                       {[]string{whole, forbid + `when { context has scopes && context.scopes.contains("mail") };`}, false, true},
		"an if":                          {[]string{whole, forbid + `when { if context has scopes then context.scopes.contains("mail") else false };`}, false, true},
		"a permit with an exception":     {[]string{permit + `unless { context has scopes && context.scopes.contains("mail") };`}, false, true},
		"a permit without scopes":        {[]string{permit + `when { !(context has scopes) };`}, false, false},
		"deep within":                    {[]string{whole, forbid + `when { [context has scopes].contains(false) || {a: 9007199254740993}.a == 9007199254740992 };`}, false, true},
		"a forbid of another flow":       {[]string{whole, forbid + `when { context.flow == "X" && context has scopes && context.scopes.contains("mail") };`}, true, true},
		"another attribute":              {[]string{whole, forbid + `when { context has flow && context.flow == "X" };`}, true, true},
		"a record of its own":            {[]string{whole, forbid + `when { {scopes: 1} has scopes && context.flow == "X" };`}, true, true},
		"a ceiling that asks, as always": {[]string{permit + `when { context has scopes && ["a"].containsAll(context.scopes) };`}, false, true},
	} {
		m := &memory{}
		for i, text := range c.policies {
			m.put("p"+string(rune('0'+i)), text)
		}
		for unknown, want := range map[bool]bool{true: c.allow, false: c.allowed} {
			facts.ScopesUnknown = unknown
			d, problems, err := engine(t, m).Explain(t.Context(), policy.Question{Caller: bot, Action: access.GetResourceOauth2Token, Facts: facts})
			must(t, err)
			if d.Allow != want || len(problems) > 0 {
				t.Errorf("%s, unknown %t: allow %t by %s, missing %q, problems %v", what, unknown, d.Allow, d.By, d.Missing, problems)
			}
		}
	}
}
