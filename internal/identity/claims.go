package identity

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
	"github.com/tabard-id/tabard/internal/access"
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
func checkTimes(claims map[string]any, now time.Time) (times, error) {
	var t times
	for name, into := range map[string]*time.Time{
		"exp": &t.expires, "iat": &t.issued, "nbf": &t.notBefore, "auth_time": &t.authenticated,
	} {
		v, ok := claims[name]
		if !ok {
			continue
		}
		at, ok := numericDate(v)
		if !ok {
			return times{}, badToken("has a claim %s that is no number of seconds since 1970", name)
		}
		*into = at
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

// numericDate reads a NumericDate (RFC 7519 §2): a JSON number of seconds, perhaps with a fraction, which is cut off.
// Exponents, negative numbers and anything that can only be milliseconds are refused.
func numericDate(v any) (time.Time, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, false
	}
	whole, fraction, _ := strings.Cut(string(n), ".")
	const tooLate = 100_000_000_000 // the year 5138 in seconds, and 1973 in milliseconds
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec <= 0 || sec >= tooLate || strings.ContainsAny(fraction, "eE+-") {
		return time.Time{}, false
	}
	return time.Unix(sec, 0), true
}

// tokenKind tells access tokens from ID tokens. UseAny means that the token does not say.
func tokenKind(t jws) TokenUse {
	var isAccess, isID bool
	mark := func(v, a, i string) {
		isAccess = isAccess || strings.EqualFold(v, a)
		isID = isID || strings.EqualFold(v, i)
	}
	mark(t.typ, "at+jwt", "\x00") // RFC 9068 §2.1
	use, _ := t.claims["token_use"].(string)
	mark(use, "access", "id") // Cognito
	typ, _ := t.claims["typ"].(string)
	mark(typ, "Bearer", "ID") // Keycloak
	if !isAccess && !isID {
		// Without a name for it, what it carries tells: OIDC Core §2 and §3.1.3.6 against RFC 9068 §2.2.3.
		for _, name := range []string{"nonce", "at_hash", "c_hash"} {
			_, ok := t.claims[name]
			isID = isID || ok
		}
		for _, name := range []string{"scope", "scp"} {
			_, ok := t.claims[name]
			isAccess = isAccess || ok
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
func checkAudience(i trust, claims map[string]any, kind TokenUse) error {
	aud, err := audience(claims)
	if err != nil {
		return err
	}
	var clients []string
	for _, name := range []string{"client_id", "azp"} {
		v, ok := claims[name]
		if !ok {
			continue
		}
		s, ok := v.(string)
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
	for _, c := range clients {
		if slices.Contains(i.ClientIDs, c) {
			return nil
		}
	}
	if len(aud) == 0 && len(clients) == 0 {
		return badToken("is for nobody in particular: it has none of aud, client_id and azp")
	}
	return badToken("is for another audience and client than its issuer is trusted for (aud %q, client %q)",
		clip(strings.Join(aud, " ")), clip(strings.Join(clients, " ")))
}

// audience reads aud, a string or a list of strings (RFC 7519 §4.1.3).
func audience(claims map[string]any) ([]string, error) {
	bad := badToken("has a claim aud that is neither a string nor a list of strings")
	switch v := claims["aud"].(type) {
	case nil:
		if _, ok := claims["aud"]; ok {
			return nil, bad
		}
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		out := make([]string, 0, len(v))
		for _, item := range v {
			s, ok := item.(string)
			if !ok {
				return nil, bad
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, bad
}

// checkRules wants each claim of the issuer's row to have exactly its value: a string, or a number or boolean that
// is written so. A list never matches.
func checkRules(rules map[string]string, claims map[string]any) error {
	for name, want := range rules {
		var have string
		switch v := claims[name].(type) {
		case string:
			have = v
		case bool:
			have = strconv.FormatBool(v)
		case json.Number:
			have = string(v)
		default:
			return badToken("lacks the claim %s that its issuer's rule asks for", clip(name))
		}
		if have != want {
			return badToken("has another value in the claim %s than its issuer's rule asks for", clip(name))
		}
	}
	return nil
}

// subject reads the claim that names the user.
func subject(claims map[string]any, name string) (string, error) {
	s, ok := claims[name].(string)
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
