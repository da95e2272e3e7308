package federation

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Durations of session credentials.
const (
	MinDuration = 15 * time.Minute
	MaxDuration = time.Hour
)

var (
	accountID   = regexp.MustCompile(`^[0-9]{12}$`)
	roleARN     = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):role/([A-Za-z0-9_.@-]{1,128})$`)
	sessionName = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{2,64}$`)
)

// Role names a principal of an account, as AWS's SDKs do.
type Role struct {
	Account   access.Account
	Principal string // name; "" for the one that the account's rules lead to, if it is one
}

// ParseRole reads arn:aws:iam::ACCOUNT:role/PRINCIPAL. Anything else is an Invalid fault of the field.
func ParseRole(field, arn string) (Role, error) {
	m := roleARN.FindStringSubmatch(arn)
	if m == nil {
		return Role{}, fault.Field(field, "%s is of the form arn:aws:iam::ACCOUNT:role/PRINCIPAL, with 12 digits and a principal's name", field)
	}
	return Role{Account: access.Account(m[1]), Principal: m[2]}, nil
}

// String is the ARN. Without a principal it ends with the slash.
func (r Role) String() string { return "arn:aws:iam::" + string(r.Account) + ":role/" + r.Principal }

// Request asks for session credentials.
type Request struct {
	Role     Role
	Session  string // name of the session, for the trail: 2 to 64 of A-Z a-z 0-9 _ + = , . @ -
	Token    secret.Text
	Duration time.Duration // 0 means MaxDuration
}

// Session is what Assume gives.
type Session struct {
	Credentials
	Role      Role // the principal whose rights they are
	Principal access.PrincipalID
	Name      string // of the session
	Issuer    string
	Subject   string
	Audience  string
}

// Assume gives session credentials of a principal to whoever holds a token that a rule maps to it. The duration is the
// caller's choice, an hour at most, and not bound by the token's own end: AWS does the same, and tokens of pods are
// often shorter than a useful session. The record of it is durable before Assume returns.
//
// The errors are Invalid for a request that is malformed; Unauthenticated for a token that is, and CredentialsExpired
// for one that is over, which depend on nothing but the token; Unavailable, which wraps ErrIssuer where it is the
// issuer that cannot be asked; and Denied for everything else, in the same words whether the role does not exist, is of
// another account, or the token fits no rule of it.
func (s *Service) Assume(ctx context.Context, q Request) (Session, error) {
	if q.Duration == 0 {
		q.Duration = MaxDuration
	}
	switch {
	case !sessionName.MatchString(q.Session):
		return Session{}, fault.Field("RoleSessionName", "the name of a session is 2 to 64 letters, digits or _+=,.@-")
	case q.Duration < MinDuration || q.Duration > MaxDuration:
		return Session{}, fault.Field("DurationSeconds", "a session lasts %d to %d seconds", int(MinDuration.Seconds()), int(MaxDuration.Seconds()))
	}
	v, g, err := s.admit(ctx, q.Role, q.Token, false)
	if err != nil {
		return Session{}, err
	}
	c, err := s.seal(ctx, v, g, q.Session, q.Duration)
	if err != nil {
		return Session{}, err
	}
	caller := callerOf(g, c.AccessKeyID)
	facts := access.Facts{
		Resource: Role{g.Account, g.To.Name}.String(), Outcome: "assumed",
		Detail: fmt.Sprintf("rule %s, issuer %s, subject %s, session %s", g.Rule.ID, g.Rule.Issuer, clip(v.subject), q.Session),
	}
	if err := s.Guard.Event(ctx, caller, access.AssumeRole, facts).Wait(ctx); err != nil {
		return Session{}, err
	}
	return Session{
		Credentials: c, Role: Role{g.Account, g.To.Name}, Principal: g.To.ID, Name: q.Session,
		Issuer: g.Rule.Issuer, Subject: v.subject, Audience: v.audience,
	}, nil
}

func callerOf(g Grant, key string) access.Caller {
	return access.Caller{Account: g.Account, Principal: g.To.ID, Name: g.To.Name, AccessKey: key, Roles: g.To.Roles, Workloads: g.To.Workloads}
}

// admit verifies a token and finds the rule that leads to the role. Whoever is turned away is recorded, as often as
// strangers allows, and with how many were not (threat M13). With useRecent, what was verified a moment ago is not
// verified again; the rules and the principal are looked at each time.
func (s *Service) admit(ctx context.Context, role Role, token secret.Text, useRecent bool) (verified, Grant, error) {
	from := stranger{account: s.Account} // a stranger writes nothing into the trail of an account that does not trust the issuer he names
	v, g, err := func() (verified, Grant, error) {
		p, err := s.read(token)
		if err != nil {
			return verified{}, Grant{}, err
		}
		if !accountID.MatchString(string(role.Account)) {
			return verified{}, Grant{}, denied("issuer-not-trusted", "%q is no account", clip(string(role.Account)))
		}
		trust, err := s.trustOf(ctx, role.Account, p)
		if err != nil {
			return verified{}, Grant{}, err
		}
		from.account = trust.Account
		epoch, err := s.stands(ctx, trust.Issuer)
		if err != nil {
			return verified{}, Grant{}, err
		}
		v, err := s.known(ctx, trust.Issuer, p, useRecent)
		if err != nil {
			return verified{}, Grant{}, err
		}
		v.epoch, from.issuer = epoch, trust.URL
		g, err := trust.match(v, role.Principal)
		return v, g, err
	}()
	turned, is := errors.AsType[*refusal](err)
	if !is {
		return v, g, err
	}
	leftOut, ok := s.strangers.take(from, s.Now())
	if !ok {
		return v, g, turned.err // the log has the reason
	}
	facts := access.Facts{Resource: clip(role.String()), Outcome: "denied", Detail: turned.why}
	if leftOut > 0 {
		facts.Detail += fmt.Sprintf("; %d refusals before it were left out", leftOut)
	}
	return v, g, s.Guard.Refuse(ctx, access.Caller{Account: from.account}, access.AssumeRole, turned.rule, facts, turned.err)
}

// known verifies a token, and has its issuer review it. With useRecent, one that was good a moment ago is not verified
// again. One that its issuer did not know is not asked about again for a while, whoever sends it: it does not become
// good.
func (s *Service) known(ctx context.Context, i Issuer, p presented, useRecent bool) (verified, error) {
	before, ok := s.recent.get(i.Account, p.text, i.UID, s.Now())
	if ok && (useRecent || before.refused != nil) {
		return before.verified, before.refused
	}
	v, err := s.verify(ctx, i, p)
	if err != nil {
		return verified{}, err
	}
	err = s.review(ctx, v, p.text)
	if err == nil || errors.Is(err, fault.Denied) {
		s.recent.put(i.Account, p.text, remembered{verified: v, refused: err, until: s.remember(v)})
	}
	return v, err
}

// match finds the rule for a token: one that leads to the principal of that name, or, without a name, to the only
// principal that any rule leads to.
func (t Trust) match(v verified, name string) (Grant, error) {
	var fits []Grant
	var misses []string
	for _, g := range t.Grants {
		if name != "" && g.To.Name != name {
			continue
		}
		if why := g.misses(v); why != "" {
			misses = append(misses, g.Rule.ID+" wants another value of "+why)
			continue
		}
		if !slices.ContainsFunc(fits, func(f Grant) bool { return f.To.ID == g.To.ID }) {
			fits = append(fits, g)
		}
	}
	token := fmt.Sprintf("a token of issuer %s with subject %s", t.URL, clip(v.subject))
	switch {
	case len(fits) == 0 && len(misses) == 0:
		return Grant{}, denied("no-rule", "no rule for %s leads to principal %s", token, clip(name))
	case len(fits) == 0:
		return Grant{}, denied("no-rule", "no rule fits %s: %s", token, strings.Join(misses[:min(len(misses), 3)], "; "))
	case len(fits) > 1:
		return Grant{}, &refusal{rule: "ambiguous", why: fmt.Sprintf("rules lead from %s to %d principals", token, len(fits)),
			err: fault.New(fault.Denied, "the token stands for more than one principal: name the one that is meant, in the header %s or in the path",
				PrincipalHeader)}
	case fits[0].To.Disabled:
		return Grant{}, denied("principal-disabled", "principal %s is disabled, which rule %s leads to", fits[0].To.Name, fits[0].Rule.ID)
	case fits[0].To.Has(access.Root):
		return Grant{}, denied("root", "principal %s has the role root, which no workload may have", fits[0].To.Name)
	}
	return fits[0], nil
}
