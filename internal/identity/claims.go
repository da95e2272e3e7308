package identity

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
)

// Times of a user's token.
const (
	clockSkew    = 60 * time.Second // tolerated between our clock and an issuer's, either way
	maxTokenLife = 24 * time.Hour   // a token that is valid for longer is refused
	maxSubject   = 255              // characters (OIDC Core §2)
)

// times are the moments that a token names. iat, nbf and auth_time are zero where it does not.
type times struct{ expires, issued, notBefore, authenticated time.Time }

// checkTimes reads exp, iat, nbf and auth_time (RFC 7519 §4.1) and compares them with now.
func checkTimes(c jws.Claims, now time.Time) (times, error) {
	var t times
	for name, into := range map[string]*time.Time{
		"exp": &t.expires, "iat": &t.issued, "nbf": &t.notBefore, "auth_time": &t.authenticated,
	} {
		var err error
		if *into, err = c.Time(name); err != nil {
			return times{}, err
		}
	}
	start := t.issued
	if start.IsZero() {
		start = now
	}
	switch {
	case t.expires.IsZero():
		return times{}, badToken("never expires: the claim exp is missing")
	case !now.Before(t.expires.Add(clockSkew)):
		return times{}, badToken("expired at %s", t.expires.UTC().Format(time.RFC3339))
	case t.issued.After(now.Add(clockSkew)):
		return times{}, badToken("was issued in the future, at %s", t.issued.UTC().Format(time.RFC3339))
	case t.notBefore.After(now.Add(clockSkew)):
		return times{}, badToken("is not valid before %s", t.notBefore.UTC().Format(time.RFC3339))
	case t.authenticated.After(now.Add(clockSkew)):
		return times{}, badToken("has a claim auth_time in the future")
	case t.expires.Sub(start) > maxTokenLife+clockSkew:
		return times{}, badToken("is valid for more than %d hours, which is too long", int(maxTokenLife.Hours()))
	}
	return t, nil
}

// tokenKind tells access tokens from ID tokens. UseAny means that the token does not say.
func tokenKind(t jws.Token) TokenUse {
	var isAccess, isID bool
	mark := func(v, a, i string) {
		isAccess = isAccess || strings.EqualFold(v, a)
		isID = isID || strings.EqualFold(v, i)
	}
	mark(t.Type, "at+jwt", "\x00") // RFC 9068 §2.1
	use, _ := t.Claims.String("token_use")
	mark(use, "access", "id") // Cognito
	typ, _ := t.Claims.String("typ")
	mark(typ, "Bearer", "ID") // Keycloak
	if !isAccess && !isID {
		// Without a name for it, what it carries tells: OIDC Core §2 and §3.1.3.6 against RFC 9068 §2.2.3.
		for _, name := range []string{"nonce", "at_hash", "c_hash"} {
			isID = isID || t.Claims.Has(name)
		}
		for _, name := range []string{"scope", "scp"} {
			isAccess = isAccess || t.Claims.Has(name)
		}
	}
	switch {
	case isAccess && !isID:
		return UseAccess
	case isID && !isAccess:
		return UseID
	}
	return UseAny
}

// checkUse refuses a token of the other kind, and one that does not say its kind where the issuer's row asks for one.
func checkUse(want, have TokenUse) error {
	if want == UseAny || want == have {
		return nil
	}
	name := func(u TokenUse) string {
		if u == UseID {
			return "an ID token"
		}
		return "an access token"
	}
	if have == UseAny {
		return badToken("does not say whether it is an access token or an ID token, and its issuer is trusted for one of them only")
	}
	return badToken("is %s, and its issuer is trusted for %s only", name(have), name(want))
}

// checkAudience wants the token to be for one of the issuer's audiences, or given to one of its client ids. Issuers
// such as Cognito put the client into client_id, others into azp, and an ID token has it in aud (OIDC Core §2).
func checkAudience(i trust, c jws.Claims, kind TokenUse) error {
	aud, err := c.Strings("aud")
	if err != nil {
		return err
	}
	var clients []string
	for _, name := range []string{"client_id", "azp"} {
		if !c.Has(name) {
			continue
		}
		s, ok := c.String(name)
		if !ok || s == "" {
			return badToken("has a claim %s that is no string", name)
		}
		clients = append(clients, s)
	}
	if i.anyAudience {
		return nil
	}
	for _, a := range aud {
		if slices.Contains(i.Audiences, a) || kind == UseID && slices.Contains(i.ClientIDs, a) {
			return nil
		}
	}
	for _, client := range clients {
		if slices.Contains(i.ClientIDs, client) {
			return nil
		}
	}
	if len(aud) == 0 && len(clients) == 0 {
		return badToken("is for nobody in particular: it has none of aud, client_id and azp")
	}
	return because(badToken("is for another audience and client than its issuer is trusted for (aud %q, client %q)",
		clip(strings.Join(aud, " ")), clip(strings.Join(clients, " "))),
		"the issuer allows the audiences %q and the client ids %q", clip(strings.Join(i.Audiences, " ")), clip(strings.Join(i.ClientIDs, " ")))
}

// checkRules wants each claim of the issuer's row to have exactly its value: a string, or a number or boolean that
// is written so. A list never matches.
func checkRules(rules map[string]string, c jws.Claims) error {
	for name, want := range rules {
		have, ok := c.Scalar(name)
		if !ok {
			return because(badToken("lacks the claim %s that its issuer's rule asks for", clip(name)), "the rule asks for %q", clip(want))
		}
		if have != want {
			return because(badToken("has another value in the claim %s than its issuer's rule asks for", clip(name)), "the rule asks for %q", clip(want))
		}
	}
	return nil
}

// checkMayAct holds the claim may_act, where the token has it, against the workload identity that is to act: the
// token's issuer says there who alone may act for the user (RFC 8693 §4.4, threat B09). sub is the workload identity's
// ARN or name, and iss, where it is there, this server's public URL. Any other member names the actor in a way that
// cannot be checked.
func (s *Service) checkMayAct(c jws.Claims, w Workload) error {
	if !c.Has("may_act") {
		return nil
	}
	members, ok := c.Object("may_act")
	sub, _ := members.String("sub")
	switch iss, named := members.String("iss"); {
	case !ok || sub == "":
		return badToken("has a claim may_act that names no actor by sub")
	case slices.ContainsFunc(members.Names(), func(n string) bool { return n != "sub" && n != "iss" }):
		return badToken("has a claim may_act with other members than sub and iss, which cannot be checked here")
	case members.Has("iss") && (!named || iss != s.issuer):
		return badToken("has a claim may_act of another issuer than this server (%s)", s.issuer)
	case sub != w.Name && sub != w.ARN(s.region):
		return badToken("may be used by another actor only: its claim may_act names %s, and not workload identity %s", clip(sub), clip(w.Name))
	}
	return nil
}

// because adds to a fault what only an administrator is to read: what the issuer's row has.
func because(f *fault.Error, format string, args ...any) *fault.Error {
	f.Err = fmt.Errorf(format, args...)
	return f
}

// subject reads the claim that names the user.
func subject(c jws.Claims, name string) (string, error) {
	s, ok := c.String(name)
	if !ok || !validSubject(s, maxSubject) {
		return "", badToken("has no claim %s that is a string of 1 to %d characters without control characters", clip(name), maxSubject)
	}
	return s, nil
}

// validSubject checks what names a user.
func validSubject(s string, most int) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !strings.ContainsFunc(s, forbiddenRune)
}

// forbiddenRune finds control characters, and U+FFFD: JSON decoders write it for halves of surrogate pairs, so that
// names which differ would become one.
func forbiddenRune(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }

// allowedFor reports whether the issuer may be used for the workload identity.
func (i Issuer) allowedFor(workload string) bool {
	return len(i.Workloads) == 0 || slices.ContainsFunc(i.Workloads, func(p string) bool { return access.MatchName(p, workload) })
}
