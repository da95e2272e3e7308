package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/policy"
)

// shapes are texts that cost Cedar's parser, its validator or a walk of the tree more than their length.
func shapes(size int) map[string]string {
	repeat := func(unit string) string { return strings.Repeat(unit, size/len(unit)) }
	when := func(e string) string {
		return `permit (principal == Tabard::Principal::"p", action, resource) when { ` + e + ` };`
	}
	nested := func(open, middle, end string) string {
		n := size / (len(open) + len(end))
		return strings.Repeat(open, n) + middle + strings.Repeat(end, n)
	}
	return map[string]string{
		"parentheses":      when(nested("(", "true", ")")),
		"sets":             when(nested("[", "1", "]") + ".isEmpty()"),
		"records":          when(nested("{a:", "1", "}") + " == 1"),
		"nots":             when(repeat("!") + "true"),
		"minuses":          when(repeat("-") + "1 == 1"),
		"ands":             when(repeat("true && ") + "true"),
		"ors":              when(repeat("false || ") + "false"),
		"wrong ands":       when(repeat("1 && ") + "1"),
		"wrong ors":        when(repeat("1 || ") + "1"),
		"sums":             when(repeat("1+") + "1 == 1"),
		"products":         when(repeat("1*") + "1 == 1"),
		"ifs":              when(repeat("if true then true else ") + "true"),
		"ifs in ifs":       when(repeat("if ") + "true" + repeat(" then true else true")),
		"has":              when("context has " + repeat("user.") + "user"),
		"spaced has":       when("context has " + repeat("a . /* */ ") + "a"),
		"has of has":       when(strings.Repeat("(", 20) + "context" + strings.Repeat(" has a.b.c)", 20)),
		"has of call":      when(strings.Repeat("[", 20) + "context" + strings.Repeat(" has a.b].isEmpty()", 20)),
		"has of a sum":     when(strings.Repeat("(", 20) + "context" + strings.Repeat(" has a.b) + 1", 20) + " == 1"),
		"attributes":       when("context" + repeat(".user")),
		"indexes":          when("context" + repeat(`["user"]`)),
		"calls":            when("context.scopes" + repeat(".isEmpty()")),
		"calls with calls": when(nested("context.scopes.contains(", "1", ")")),
		"types":            when("principal is " + repeat("A::") + "A"),
		"entities":         when("principal == " + repeat("A::") + `"a"`),
		"pattern":          when(`"a" like "` + repeat("a") + `"`),
		"stars":            when(`"a" like "` + repeat("a*") + `"`),
		"strings":          when("[" + repeat(`"a",`) + `"a"].isEmpty()`),
		"different":        when("[" + repeat(`1,"a",`) + `"a"].isEmpty()`),
		"actions":          `permit (principal, action in [` + repeat(`Tabard::Action::"x",`) + `Tabard::Action::"y"], resource);`,
		"conditions":       `permit (principal, action, resource) ` + repeat("when{1}") + ";",
		"annotations":      repeat("@a") + `permit (principal, action, resource);`,
		"statements":       repeat("permit(principal,action,resource);"),
		"wrong statements": strings.Repeat(`permit(principal,action,resource)when{`+strings.Repeat("1&&", 70)+`1};`, size/260),
		"comments":         when(repeat("/**/") + "true"),
		"comparisons":      when(repeat("context.time < context.time && ") + "true"),
		"records in order": when("{" + func() (s string) {
			for i := range size / 12 {
				s += fmt.Sprintf("k%d:%d,", i, i)
			}
			return s
		}() + "z:1} == {}"),
	}
}

// No text costs more than a moment, whatever it is made of: neither 15 KiB nor all that is allowed.
func TestM10_PolicyTextCostsLittle(t *testing.T) {
	for _, size := range []int{15 << 10, policy.MaxText - 400} {
		for name, text := range shapes(size) {
			e := engine(t, &memory{})
			m := &memory{}
			m.put("stored", text)
			stored := engine(t, m)
			start := time.Now()
			e.Check(text)
			checked := time.Since(start)
			start = time.Now()
			decision(t, stored, agent("p", "w"), access.GetResourceAPIKey, access.Facts{Workload: "w"})
			if read := time.Since(start); checked > time.Second || read > time.Second {
				t.Errorf("%s of %d bytes: checked in %s, read from the store in %s", name, size, checked, read)
			} else if checked > 50*time.Millisecond {
				t.Logf("%s of %d bytes: checked in %s, read from the store in %s", name, size, checked, read)
			}
		}
	}
}

// Trees that are deep or wide are refused for that, by place, and honest long texts are not.
func TestM10_PolicyTextIsMeasuredFirst(t *testing.T) {
	e := engine(t, &memory{})
	for name, want := range map[string]string{
		"parentheses": "it nests more than 24 deep", "sets": "it nests more than 24 deep", "nots": "more than 250 operators",
		"ands": "more than 250 operators", "ifs": "it nests more than 24 deep", "has": "more than 16 names stand in a row",
		"has of has": "more than 2000 parts", "has of call": "more than 2000 parts", "has of a sum": "more than 2000 parts", "indexes": "more than 2000 parts",
		"pattern": "more than 4096 bytes", "wrong statements": "more than 8000 parts",
	} {
		size := policy.MaxText - 400
		got := e.Check(shapes(size)[name])
		if !slices.ContainsFunc(got, func(p policy.Problem) bool { return p.Line > 0 && strings.Contains(p.Message, want) }) {
			t.Errorf("%s: got %v, want %q", name, got, want)
		}
	}
	var scopes, users []string
	for i := range 400 {
		scopes = append(scopes, fmt.Sprintf(`"https://api.example/%d"`, i))
	}
	for i := range 100 {
		users = append(users, fmt.Sprintf(`context.user.subject == "user-%d"`, i))
	}
	for _, body := range []string{
		"[" + strings.Join(scopes, ", ") + "].containsAll(context.scopes)",
		"context has user && (" + strings.Join(users, " || ") + ")",
		`context has user && context.user has issuer && context.user.issuer like "https://*.example" // a ( comment "`,
	} {
		text := `permit (principal == Tabard::Principal::"p", action == Tabard::Action::"GetResourceOauth2Token", resource) when { ` + body + "\n};"
		for _, p := range e.Check(text) {
			if p.Severity == policy.Error {
				t.Errorf("%.80s: %v", body, p)
			}
		}
	}
}

// What an account asks about its policies it asks in turn, and another account is answered meanwhile.
func TestM10_OneAccountsTextsWaitForEachOther(t *testing.T) {
	d := newDesk(t)
	other := access.Caller{Account: "111111111111", Principal: "prn-other", Name: "other", Roles: []access.Role{access.Auditor}}
	text := strings.Repeat(`permit(principal,action,resource)when{`+strings.Repeat("1&&", 60)+`1};`, 12)
	stop := make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	turnedAway := 0
	for range 16 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := d.Validate(t.Context(), d.admin, text); errors.Is(err, fault.Throttled) {
					mu.Lock()
					turnedAway++
					mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	var slowest time.Duration
	for range 10 {
		start := time.Now()
		if _, err := d.Validate(t.Context(), other, `permit (principal, action, resource);`); err != nil {
			t.Error(err)
		}
		slowest = max(slowest, time.Since(start))
	}
	close(stop)
	group.Wait()
	if slowest > time.Second || turnedAway == 0 {
		t.Errorf("another account waited %s at most; %d of the first account's requests were turned away", slowest, turnedAway)
	}
}
