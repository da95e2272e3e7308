package main

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/api"
)

// keeps refuses to replace a policy by one that permits more, or forbids less, because something was left out: a
// command that was copied from a refusal, or typed from memory, does not know what the policy restricts.
func (r *right) keeps(ctx context.Context, c *client, q *api.PutPolicyRequest, text func() string) error {
	a, is, err := found(call[api.GetPolicyResponse](ctx, c, api.OpGetPolicy, api.GetPolicyRequest{Name: q.Name}))
	if err != nil || !is || a.Policy == nil || a.Policy.Text == q.Text {
		return err
	}
	q.ExpectedVersion = a.Policy.Version // not what somebody else writes meanwhile
	if r.replace {
		return nil
	}
	lost := r.lost(a.Policy.Text, text)
	if len(lost) == 0 {
		return nil
	}
	return usage("give what it has, or add --replace to do without; tabard policy show "+q.Name+" prints it",
		"policy %s would be replaced by a wider one: %s", q.Name, strings.Join(lost, "; "))
}

var (
	oldScopes = regexp.MustCompile(`context\.scopes\.containsAny\(\["([^\]]*)"\]\)|\["([^\]]*)"\]\.containsAll\(context\.scopes\)`)
	oldFlow   = regexp.MustCompile(`context\.flow == "([^"]*)"`)
	oldIssuer = regexp.MustCompile(`context\.user\.issuer == "([^"]*)"`)
)

// lost says what the policy old restricts or forbids that the new one does not. It is read by writing it again: what
// comes out otherwise was not written by this command, and nobody knows what would be lost.
func (r *right) lost(old string, text func() string) (lost []string) {
	was := *r
	was.scopes, was.flow, was.userIssuer, was.asserted = nil, first(oldFlow, old), first(oldIssuer, old), strings.Contains(old, `Action::"assert"`)
	if s := first(oldScopes, old); s != "" {
		was.scopes = strings.Split(s, `", "`)
	}
	now := *r
	*r = was
	same := text() == old
	*r = now
	if !same {
		return []string{"it was not written by this command with these flags, so that nobody knows what else it says"}
	}
	if strings.HasPrefix(old, "forbid") {
		return now.lifted(was)
	}
	if len(was.scopes) > 0 && len(now.scopes) == 0 {
		lost = append(lost, "only the scopes "+strings.Join(was.scopes, ", ")+" are permitted (--scopes "+strings.Join(was.scopes, ",")+")")
	}
	if was.flow != "" && now.flow == "" {
		lost = append(lost, "only the flow "+was.flow+" is (--flow "+was.flow+")")
	}
	if was.userIssuer != "" && now.userIssuer == "" {
		lost = append(lost, "only users of "+was.userIssuer+" are (--user-issuer "+was.userIssuer+")")
	}
	return lost
}

// lifted says what was forbidden, and is not by r.
func (r *right) lifted(was right) (lost []string) {
	free := slices.DeleteFunc(slices.Clone(was.scopes), func(s string) bool { return slices.Contains(r.scopes, s) })
	switch {
	case len(r.scopes) > 0 && len(was.scopes) == 0:
		lost = append(lost, "every scope is forbidden (leave --scopes out)")
	case len(r.scopes) > 0 && len(free) > 0:
		lost = append(lost, "the scopes "+strings.Join(free, ", ")+" are forbidden (--scopes "+strings.Join(append(slices.Clone(r.scopes), free...), ",")+")")
	}
	if r.flow != "" && r.flow != was.flow {
		lost = append(lost, "another flow is forbidden too (leave --flow out)")
	}
	if r.userIssuer != "" && r.userIssuer != was.userIssuer {
		lost = append(lost, "users of others are forbidden it too (leave --user-issuer out)")
	}
	return lost
}

// first is what the group that matched has, or "".
func first(find *regexp.Regexp, in string) string {
	m := find.FindStringSubmatch(in)
	if m == nil {
		return ""
	}
	return strings.Join(m[1:], "") // one of them matched
}
