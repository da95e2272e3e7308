package access_test

import (
	"context"
	"fmt"
	"os"
	"path"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

const account access.Account = "000000000000"

func clockAt(at time.Time) func() time.Time { return func() time.Time { return at } }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, what string, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("%s: got %v, want code %q", what, err, code)
	}
}

func with(role access.Role, workloads ...string) access.Caller {
	return access.Caller{Account: account, Principal: "prn-1", Name: "p", AccessKey: "AK1", Roles: []access.Role{role}, Workloads: workloads}
}

// actions are all that there are, and one that there is not.
func actions() []access.Action { return append(access.Actions(), "Unheard") }

// M06: the whole table, of the product's own list, as a file that a reviewer reads: UPDATE=1 go test writes it anew.
func TestM06_RuleTable(t *testing.T) {
	const golden = "testdata/rules.txt"
	columns := []struct {
		name   string
		caller access.Caller
		facts  access.Facts
	}{
		{"root", with(access.Root), access.Facts{Workload: "w"}},
		{"admin", with(access.Admin), access.Facts{Workload: "w"}},
		{"auditor", with(access.Auditor), access.Facts{Workload: "w"}},
		{"agent", with(access.Agent, "w"), access.Facts{Workload: "w"}},
		{"agent+assert", with(access.Agent, "w"), access.Facts{Workload: "w", Assertable: true}},
		{"agent-other", with(access.Agent, "v"), access.Facts{Workload: "w", Assertable: true}},
		{"app", with(access.ConsentApp, "w"), access.Facts{Workload: "w"}},
		{"app-other", with(access.ConsentApp, "v"), access.Facts{Workload: "w"}},
		{"no-role", access.Caller{Account: account, Principal: "prn-1", Workloads: []string{"*"}}, access.Facts{Workload: "w"}},
		{"nobody", access.Caller{Account: account, Roles: []access.Role{access.Root}, Workloads: []string{"*"}}, access.Facts{Workload: "w"}},
		{"no-account", access.Caller{Principal: "prn-1", Roles: []access.Role{access.Root}}, access.Facts{Workload: "w"}},
	}
	log := &memory{}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%-35s", "")
	for _, c := range columns {
		fmt.Fprintf(&b, " %-12s", c.name)
	}
	for _, a := range actions() {
		fmt.Fprintf(&b, "\n%-35s", a)
		for _, c := range columns {
			err := g.Permit(t.Context(), c.caller, a, c.facts)
			rule := log.last().Rule
			if log.last().Allow != (err == nil) {
				t.Errorf("%s by %s: the record and the answer differ", a, c.name)
			}
			cell := "-"
			if err == nil {
				cell = strings.TrimPrefix(rule, "role:")
			} else {
				wantCode(t, string(a), err, fault.Denied)
			}
			fmt.Fprintf(&b, " %-12s", cell)
		}
	}
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	got := strings.Join(lines, "\n") + "\n"
	if os.Getenv("UPDATE") != "" {
		must(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("rule table (-want +got):\n%s", d)
	}
}

func TestRefusalsSayWhatIsMissing(t *testing.T) {
	g := access.NewGuard(access.Config{Log: &memory{}, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	for _, c := range []struct {
		caller access.Caller
		action access.Action
		want   string
	}{
		{with(access.Auditor), access.CreateWorkloadIdentity, "principal p is not allowed to perform CreateWorkloadIdentity for workload identity w: it needs the role admin"},
		{with(access.Agent), access.GetWorkloadIdentity, "it needs the role admin or auditor"},
		{with(access.Admin), access.GetResourceOauth2Token, "it needs the role agent"},
		{with(access.Agent, "v"), access.GetResourceOauth2Token, "it needs a pairing of the principal with the workload identity"},
		{with(access.Agent, "w"), access.GetWorkloadAccessTokenForUserID, "it needs the tag tabard:assurance=asserted on the workload identity"},
		{with(access.Agent, "w"), access.CompleteResourceTokenAuth, "it needs the role consent-app"},
		{with(access.Admin), "Unheard", "it needs the role root"},
		{access.Caller{}, access.GetResourceOauth2Token, "the caller is not allowed to perform GetResourceOauth2Token for workload identity w: it needs an authenticated caller"},
	} {
		err := g.Permit(t.Context(), c.caller, c.action, access.Facts{Workload: "w"})
		wantCode(t, string(c.action), err, fault.Denied)
		if msg := fault.Public(err).Msg; !strings.Contains(msg, c.want) {
			t.Errorf("got %q, want %q in it", msg, c.want)
		}
	}
}

func TestMatchName(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "a", true}, {"a", "A", false}, {"a", "ab", false}, {"a", "", false},
		{"*", "", true}, {"*", "anything", true}, {"**", "x", true}, {"a*", "a", true}, {"a*", "abc", true}, {"a*", "ba", false},
		{"*a", "a", true}, {"*a", "cba", true}, {"*a", "ab", false}, {"a*c", "ac", true}, {"a*c", "abcbc", true}, {"a*c", "abcd", false},
		{"a*b*c", "a-b-c", true}, {"a*b*c", "acb", false}, {"*ab", "aab", true}, {"*.x", "x", false}, {"a?", "ab", false}, {"[a]", "a", false},
		{"a.c", "abc", false}, {"agent-*", "agent-", true}, {"agent-*", "agent", false},
	} {
		if got := access.MatchName(c.pattern, c.name); got != c.want {
			t.Errorf("MatchName(%q, %q): got %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

// The reference is path.Match, where nothing but the star is special and no name has a slash.
func FuzzMatchName(f *testing.F) {
	for _, s := range [][2]string{{"a*b", "axxb"}, {"*", ""}, {"a*b*c", "abc"}, {"**a", "ba"}, {"agent-a", "agent-a"}, {"*a*", "bab"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 40 || len(name) > 60 || strings.Count(pattern, "*") > 5 || strings.ContainsAny(pattern+name, `/\?[]`) {
			t.Skip()
		}
		want, err := path.Match(pattern, name)
		must(t, err)
		if got := access.MatchName(pattern, name); got != want {
			t.Errorf("MatchName(%q, %q): got %v, want %v", pattern, name, got, want)
		}
	})
}

// The time does not explode with the number of stars.
func TestMatchNameIsBounded(t *testing.T) {
	start := time.Now()
	if access.MatchName(strings.Repeat("a*", 120)+"b", strings.Repeat("a", 255)) {
		t.Error("it matches")
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("it took %s", d)
	}
}

// A field that is added to a record or its facts must be covered by the hash, or an edit of it goes unseen.
func TestHashCoversEveryField(t *testing.T) {
	want, n := sealed(aRecord()), 0
	var change func(path string, at func(*access.Record) reflect.Value)
	change = func(path string, at func(*access.Record) reflect.Value) {
		probe := aRecord()
		v := at(&probe)
		switch v.Interface().(type) {
		case time.Time:
			v.Set(reflect.ValueOf(time.UnixMilli(1_700_000_000_001)))
		case [32]byte:
			return // Prev is Seal's argument, Hash its result
		case access.Unrecorded:
			return
		case access.Record, access.Facts:
			for i := range v.NumField() {
				change(path+"."+v.Type().Field(i).Name, func(r *access.Record) reflect.Value { return at(r).Field(i) })
			}
			return
		default:
			alter(t, path, v)
		}
		n++
		if sealed(probe) == want {
			t.Errorf("a change of %s does not change the hash", path)
		}
	}
	change("Record", func(r *access.Record) reflect.Value { return reflect.ValueOf(r).Elem() })
	if n < 23 {
		t.Errorf("only %d fields were changed", n)
	}
}

// alter changes a value.
func alter(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "!")
	case reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.Set(reflect.ValueOf([]string{"s", "t", ""}))
	default:
		t.Fatalf("%s has a kind that this test does not know", path)
	}
}

func aRecord() access.Record {
	return access.Record{
		Writer: "w", Sequence: 7, Time: time.UnixMilli(1_700_000_000_000), Account: account, Principal: "p", Name: "n", AccessKey: "k",
		RequestID: "r", Action: "a", Rule: "x", Facts: access.Facts{Scopes: []string{"s", "t"}},
	}
}

func sealed(r access.Record) [32]byte {
	r.Seal([32]byte{1})
	return r.Hash
}

func TestHashTellsRecordsApart(t *testing.T) {
	want := sealed(aRecord())
	r := aRecord()
	r.Seal([32]byte{2})
	if r.Hash == want || r.Prev != [32]byte{2} {
		t.Error("the hash does not cover the one before")
	}
	moved := aRecord()
	moved.Name, moved.AccessKey = "nk", ""
	if sealed(moved) == want {
		t.Error("text moved from one field to the next keeps the hash")
	}
	joined := aRecord()
	joined.Facts.Scopes = []string{"st"}
	if sealed(joined) == want {
		t.Error("two scopes and one joined have the same hash")
	}
}

func TestRequestID(t *testing.T) {
	ctx := context.Background()
	if got := access.RequestID(ctx); got != "" {
		t.Errorf("got %q, want none", got)
	}
	if got := access.RequestID(access.WithRequestID(ctx, "r1")); got != "r1" {
		t.Errorf("got %q, want r1", got)
	}
}

func TestRecordID(t *testing.T) {
	if got := (access.Record{Writer: "abc", Sequence: 258}).ID(); got != "abc-0000000000000102" {
		t.Errorf("got %s", got)
	}
}
