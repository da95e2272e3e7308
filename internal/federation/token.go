package federation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/secret"
)

// Times of a workload's token.
const (
	clockSkew    = 60 * time.Second // tolerated between our clock and an issuer's, either way
	maxTokenLife = 24 * time.Hour   // a token that is valid for longer is refused
)

// maxReason bounds what the trail says about one refusal, in bytes.
const maxReason = 600

// tokenNoun is what sentences call a workload's token.
const tokenNoun = "the web identity token"

// ErrIssuer marks Unavailable faults that are an issuer's doing, and not this server's.
var ErrIssuer = errors.New("the issuer does not answer")

// refusal is why a workload is turned away. What it may read is said by err, whose cause has the reason.
type refusal struct {
	rule string // for the trail
	why  string // for the trail and the log
	err  *fault.Error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// denied is the refusal that looks the same whatever the reason is.
func denied(rule, format string, args ...any) error {
	why := fmt.Sprintf(format, args...)
	if len(why) > maxReason {
		why = strings.ToValidUTF8(why[:maxReason], "") + "..."
	}
	return &refusal{rule: rule, why: why,
		err: fault.Wrap(fault.Denied, errors.New(why), "not authorized to perform sts:AssumeRoleWithWebIdentity")}
}

// malformed is the refusal of a token that nobody would take: it says what the token itself says.
func malformed(err error) error {
	public := fault.Public(err)
	return &refusal{rule: "token-malformed", why: public.Msg, err: public}
}

func bad(format string, args ...any) error {
	return malformed(fault.New(fault.Unauthenticated, tokenNoun+" "+format, args...))
}

// verified is what is known of a token whose signature, audience and times are right.
type verified struct {
	issuer   Issuer
	subject  string
	audience string // the one of ours that it is for
	claims   jws.Claims
	expires  time.Time
	epoch    int64 // of the issuer, when it was last looked at
}

// presented is a token that was read and whose times are right. Nothing else that it says is known to be true.
type presented struct {
	jws.Token
	text     secret.Text
	issuer   string // the claim iss, "" where there is none
	subject  string
	audience []string
	expires  time.Time
}

// read reads a token and refuses what no issuer could make good: no expiry, no audience (as the tokens of Kubernetes'
// legacy secrets, threat A26), times that are over. That depends on nothing but the token and the clock.
func (s *Service) read(token secret.Text) (presented, error) {
	t, err := jws.Parse(tokenNoun, token)
	if err != nil {
		return presented{}, malformed(err)
	}
	p := presented{Token: t, text: token}
	if p.audience, err = t.Claims.Strings("aud"); err != nil {
		return p, malformed(err)
	}
	if len(p.audience) == 0 {
		return p, bad("is for nobody in particular: the claim aud is missing (tokens of Kubernetes secrets are not accepted, projected ones are)")
	}
	if p.subject, _ = t.Claims.String("sub"); !plainText(p.subject) {
		return p, bad("has no claim sub that is a string of 1 to %d bytes without control characters", maxText)
	}
	if t.Claims.Has("iss") {
		var ok bool
		if p.issuer, ok = t.Claims.String("iss"); !ok || len(p.issuer) > maxURL {
			return p, bad("has a claim iss that is no string of at most %d bytes", maxURL)
		}
	}
	p.expires, err = checkTimes(t.Claims, s.Now())
	return p, err
}

// checkTimes reads exp, iat and nbf (RFC 7519 §4.1) and compares them with now.
func checkTimes(c jws.Claims, now time.Time) (expires time.Time, err error) {
	var issued, notBefore time.Time
	for name, into := range map[string]*time.Time{"exp": &expires, "iat": &issued, "nbf": &notBefore} {
		if *into, err = c.Time(name); err != nil {
			return expires, malformed(err)
		}
	}
	start := issued
	if start.IsZero() {
		start = now
	}
	switch {
	case expires.IsZero():
		return expires, bad("never expires: the claim exp is missing")
	case !now.Before(expires.Add(clockSkew)):
		at := expires.UTC().Format(time.RFC3339)
		return expires, &refusal{rule: "token-expired", why: "the token expired at " + at,
			err: fault.New(fault.CredentialsExpired, tokenNoun+" expired at %s", at)}
	case issued.After(now.Add(clockSkew)):
		return expires, bad("was issued in the future, at %s", issued.UTC().Format(time.RFC3339))
	case notBefore.After(now.Add(clockSkew)):
		return expires, bad("is not valid before %s", notBefore.UTC().Format(time.RFC3339))
	case expires.Sub(start) > maxTokenLife+clockSkew:
		return expires, bad("is valid for more than %d hours, which is too long", int(maxTokenLife.Hours()))
	}
	return expires, nil
}

// trustOf finds the issuer of a token among those of the account. A token whose subject is of a trust domain that the
// account trusts is one of that domain, whatever its iss, which JWT-SVIDs need not have.
func (s *Service) trustOf(ctx context.Context, account access.Account, p presented) (Trust, error) {
	for _, url := range []string{trustDomainOf(p.subject), p.issuer} {
		if url == "" {
			continue
		}
		trust, err := s.Store.WorkloadTrust(ctx, account, url)
		if !errors.Is(err, fault.NotFound) {
			return trust, err
		}
	}
	// Not the subject: it may be a user's token that came to the wrong place, and a trail holds nobody's name.
	return Trust{}, denied("issuer-not-trusted", "the issuer %q is not trusted in account %s", clip(p.issuer), account)
}

// stands returns the epoch of an issuer that is not disabled in the account, and refuses one that is. It refuses this
// server too, whatever a row says: accounts do not name each other's workloads (threat M34).
func (s *Service) stands(ctx context.Context, i Issuer) (epoch int64, err error) {
	if identity.Under(s.Server, i.URL) {
		return 0, denied("issuer-own", "the issuer %s is this server itself, which names no workloads here", i.URL)
	}
	at, err := s.Store.Standing(ctx, i.Account, identity.IssuerStanding, i.URL)
	if err == nil && at.Down() {
		err = denied("issuer-disabled", "the issuer %s is disabled", i.URL)
	}
	return at.Epoch, err
}

// verify checks the token's signature with the keys of its issuer, and that it is for us.
func (s *Service) verify(ctx context.Context, i Issuer, p presented) (verified, error) {
	if i.URL != p.issuer && i.URL != trustDomainOf(p.subject) {
		return verified{}, fault.New(fault.Internal, "the issuer that was found is not the one that was asked for")
	}
	if err := s.checkSignature(ctx, i, p); err != nil {
		return verified{}, err
	}
	ours := ""
	for _, a := range p.audience {
		switch {
		case !slices.Contains(i.Audiences, a):
			if !i.OtherAudiences {
				return verified{}, denied("audience", "the token is for %q, and only %q is accepted of the issuer %s",
					clip(strings.Join(p.audience, " ")), strings.Join(i.Audiences, " "), i.URL)
			}
		case ours == "":
			ours = a
		}
	}
	if ours == "" {
		return verified{}, denied("audience", "the token is for %q, which is not us", clip(strings.Join(p.audience, " ")))
	}
	return verified{issuer: i, subject: p.subject, audience: ours, claims: p.Claims, expires: p.expires}, nil
}

func (s *Service) checkSignature(ctx context.Context, i Issuer, p presented) error {
	id := keyring.Issuer{Account: i.Account, URL: i.URL, JWKSURI: i.JWKSURI}
	check := func(k keys) error { return k.verify(i, p) }
	var err error
	if len(i.JWKS) > 0 {
		var given keys
		if given, err = readKeys(id, i.JWKS); err != nil {
			return fault.Wrap(fault.Internal, err, "the keys of workload issuer %s cannot be read", i.URL)
		}
		err = check(given)
	} else {
		err = s.keys.Verify(ctx, id, check)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fault.Unavailable):
		return &refusal{rule: "issuer-unavailable", why: clip(fault.Public(err).Msg),
			err: fault.Wrap(fault.Unavailable, errors.Join(ErrIssuer, err), "the keys of the token's issuer cannot be had now")}
	}
	return denied("signature", "issuer %s: %s", i.URL, clip(fault.Public(err).Msg))
}

// review asks the issuer about a verified token, where the configuration says so (threat A26: the pod may be gone).
func (s *Service) review(ctx context.Context, v verified, token secret.Text) error {
	if !s.Reviewed(v.issuer.URL) {
		return nil
	}
	err := s.Reviewer.Review(ctx, v.issuer.URL, token, v.subject, v.issuer.Audiences)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fault.Unauthenticated):
		return denied("token-review", "issuer %s: %s", v.issuer.URL, clip(fault.Public(err).Msg))
	}
	return &refusal{rule: "issuer-unavailable", why: clip(fault.Public(err).Msg),
		err: fault.Wrap(fault.Unavailable, errors.Join(ErrIssuer, err), "the token's issuer cannot be asked about it now")}
}
