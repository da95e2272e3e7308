package identity

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/keyring"
)

// Bounds of an issuer's row.
const (
	maxIssuerURL  = 1024
	maxIssuerList = 50 // audiences, client ids, claim rules
	maxIssuerText = 1024
)

const defaultSubject = "sub"

// CreateIssuer trusts an issuer in the caller's account: its tokens name users from then on. A URL that is trusted
// already is a Conflict; one that is not in canonical form is Invalid, with the canonical form in the message,
// because it is compared byte for byte with the claim iss (threat A09).
func (s *Service) CreateIssuer(ctx context.Context, caller access.Caller, i Issuer) (Issuer, error) {
	i.Account, i.FromConfig, i.Created = caller.Account, false, s.now()
	i, err := checkIssuer(i, s.dev)
	if err != nil {
		return Issuer{}, err
	}
	if s.Owns(i.URL) || s.Owns(i.JWKSURI) {
		return Issuer{}, fault.Field("issuer", "is this server itself: what it signs names no users here")
	}
	if err := s.guard.Permit(ctx, caller, access.CreateTrustedIssuer, access.Facts{Resource: i.URL}); err != nil {
		return Issuer{}, err
	}
	if _, ok := s.configIssuer(caller.Account, i.URL); ok {
		return Issuer{}, fault.New(fault.Conflict, "the issuer %s is trusted already, by the configuration file", i.URL)
	}
	var pins map[string]string
	if i.UserInfo && s.metadata != nil { // users' tokens go there: whoever vouches for the issuer vouches for where it is now
		var m keyring.Metadata
		if m, pins, err = s.readMetadata(ctx, caller.Account, i.URL); err != nil {
			return Issuer{}, err
		}
		if pins[keyring.UserInfoPin] == "" {
			return Issuer{}, fault.Field("userinfo", "the metadata of the issuer %s names no UserInfo endpoint (%q)", i.URL, clip(m.UserInfo))
		}
	}
	err = s.store.CreateIssuer(ctx, i)
	if errors.Is(err, fault.Conflict) {
		return Issuer{}, fault.Wrap(fault.Conflict, err, "the issuer %s is trusted already", i.URL)
	}
	if err == nil && len(pins) > 0 {
		err = s.store.RepinIssuer(ctx, i.Account, i.URL, pins)
	}
	if err != nil {
		return Issuer{}, err
	}
	return i, nil
}

// ListIssuers lists by URL, those of the configuration file among the others. The cursor is "" on the last page.
func (s *Service) ListIssuers(ctx context.Context, caller access.Caller, after string, limit int) ([]Issuer, string, error) {
	if err := s.guard.Permit(ctx, caller, access.ListTrustedIssuers, access.Facts{}); err != nil {
		return nil, "", err
	}
	limit = pageSize(limit)
	found, err := s.store.Issuers(ctx, caller.Account, after, limit+1)
	if err != nil {
		return nil, "", err
	}
	all := slices.DeleteFunc(slices.Clone(found), func(i Issuer) bool {
		_, shadowed := s.configIssuer(caller.Account, i.URL)
		return shadowed
	})
	for _, i := range s.config {
		if i.URL > after && (i.Account == "" || i.Account == caller.Account) {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b Issuer) int { return cmp.Compare(a.URL, b.URL) })
	all, next := page(all, limit, func(i Issuer) string { return i.URL })
	return all, next, nil
}

// DeleteIssuer ends the trust. Workload access tokens of its users stay valid until they end: DisableIssuer ends those.
func (s *Service) DeleteIssuer(ctx context.Context, caller access.Caller, issuerURL string) error {
	facts := access.Facts{Resource: clip(issuerURL)}
	if err := s.guard.Permit(ctx, caller, access.DeleteTrustedIssuer, facts); err != nil {
		return err
	}
	if _, ok := s.configIssuer(caller.Account, issuerURL); ok {
		return fault.Field("issuer", "the issuer %s comes from the configuration file and can only be removed there", clip(issuerURL))
	}
	return s.store.DeleteIssuer(ctx, caller.Account, issuerURL)
}

// trust is an issuer and how far it is trusted.
type trust struct {
	Issuer
	anyAudience bool // an issuer on loopback, in dev mode
}

// Owns reports whether the address lies at or under the server's public URL. Nothing there is trusted by any account:
// each account is an issuer of its own there, and who signs for one account must not name users or workloads of another
// (threat M34). It decides nothing about a caller.
func (s *Service) Owns(address string) bool { return Under(s.issuer, address) }

// Under reports whether the address lies at or under the URL base, however its host and path are spelled. An address
// without a host does not.
func Under(base, address string) bool {
	b, err := url.Parse(base)
	if err != nil {
		return false
	}
	a, err := url.Parse(address)
	if err != nil || a.Hostname() == "" {
		return false
	}
	host := func(u *url.URL) string {
		name, port := strings.TrimRight(strings.ToLower(u.Hostname()), "."), u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
		}
		return name + ":" + port
	}
	root := strings.TrimRight(b.Path, "/")
	at := path.Clean("/" + a.Path) // decoded, as a server may read it
	return host(a) == host(b) && (root == "" || at == root || strings.HasPrefix(at, root+"/"))
}

// trusted finds the issuer of a token. In dev mode an issuer on loopback needs no row.
func (s *Service) trusted(ctx context.Context, account access.Account, iss string) (trust, error) {
	if s.Owns(iss) {
		return trust{}, badToken("is of this server itself, which names no users here")
	}
	if i, ok := s.configIssuer(account, iss); ok {
		return trust{Issuer: i}, nil
	}
	i, err := s.store.Issuer(ctx, account, iss)
	if !errors.Is(err, fault.NotFound) {
		return trust{Issuer: i}, err
	}
	if s.dev && canonicalURL(iss, true) == "" {
		if u, err := url.Parse(iss); err == nil && IsLoopback(u.Hostname()) {
			i := Issuer{Account: account, URL: iss, TokenUse: UseAny, SubjectClaim: defaultSubject}
			return trust{Issuer: i, anyAudience: true}, nil
		}
	}
	return trust{}, badToken("is of the issuer %q, which is not trusted", clip(iss))
}

func (s *Service) configIssuer(account access.Account, issuerURL string) (Issuer, bool) {
	for _, i := range s.config {
		if i.URL == issuerURL && (i.Account == "" || i.Account == account) {
			return i, true
		}
	}
	return Issuer{}, false
}

func configIssuers(given []Issuer, dev bool) ([]Issuer, error) {
	out := make([]Issuer, 0, len(given))
	for _, i := range given {
		i.FromConfig = true
		i, err := checkIssuer(i, dev)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "issuer %q in the configuration: %s", clip(i.URL), fault.Public(err).Msg)
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b Issuer) int { return cmp.Compare(a.URL, b.URL) })
	return out, nil
}

// checkIssuer checks a row and fills its defaults.
func checkIssuer(i Issuer, dev bool) (Issuer, error) {
	if why := canonicalURL(i.URL, dev); why != "" {
		return i, fault.Field("issuer", "%q cannot be an issuer: %s", clip(i.URL), why)
	}
	if len(i.Audiences) == 0 && len(i.ClientIDs) == 0 {
		return i, fault.Field("audiences", "an issuer needs at least one audience or client id: without it a token for any other app would do")
	}
	if i.SubjectClaim == "" {
		i.SubjectClaim = defaultSubject
	}
	if i.BackchannelLogout && i.SubjectClaim != defaultSubject {
		return i, fault.Field("backchannelLogout", "cannot be had with the subject claim %s: a logout token names the user by sub", clip(i.SubjectClaim))
	}
	switch i.TokenUse {
	case "":
		i.TokenUse = UseAny
	case UseAny, UseAccess, UseID:
	default:
		return i, fault.Field("tokenUse", "%q is not one of access, id, any", clip(string(i.TokenUse)))
	}
	if err := checkIssuerTexts(i); err != nil {
		return i, err
	}
	if err := checkPatterns("workloads", i.Workloads); err != nil {
		return i, err
	}
	if err := checkPolicyClaims(i.PolicyClaims); err != nil {
		return i, err
	}
	if i.JWKSURI != "" && len(i.JWKS) > 0 {
		return i, fault.Field("jwksUri", "give either a JWKS URI or a JWKS document")
	}
	if i.JWKSURI != "" {
		if why := jwksURIFlaw(i.JWKSURI, dev); why != "" {
			return i, fault.Field("jwksUri", "%q cannot be a JWKS URI: %s", clip(i.JWKSURI), why)
		}
	}
	if len(i.JWKS) > 0 {
		if _, err := jws.ParseSet(i.JWKS); err != nil {
			return i, fault.Field("jwks", "the JWKS document cannot be used: %s", err.Error())
		}
	}
	return i, nil
}

func checkIssuerTexts(i Issuer) error {
	for field, list := range map[string][]string{"audiences": i.Audiences, "clientIds": i.ClientIDs} {
		if len(list) > maxIssuerList {
			return fault.Field(field, "at most %d can be given", maxIssuerList)
		}
		for _, v := range list {
			if !plainText(v) {
				return fault.Field(field, "%q is empty, too long or has a control character", clip(v))
			}
		}
	}
	if len(i.Claims) > maxIssuerList {
		return fault.Field("claims", "at most %d rules can be given", maxIssuerList)
	}
	for k, v := range i.Claims {
		if !plainText(k) || !plainText(v) {
			return fault.Field("claims", "the rule for %q has an empty or too long text or a control character", clip(k))
		}
	}
	if !plainText(i.SubjectClaim) {
		return fault.Field("subjectClaim", "%q cannot be the name of a claim", clip(i.SubjectClaim))
	}
	return nil
}

func plainText(s string) bool {
	return s != "" && len(s) <= maxIssuerText && utf8.ValidString(s) && !strings.ContainsFunc(s, forbiddenRune)
}

// canonicalURL says what keeps s from being an issuer's URL in canonical form (RFC 8414 §2), or "". The path is
// taken as it is: with a slash at its end it is another issuer, and both exist in the wild.
func canonicalURL(s string, dev bool) string {
	if len(s) > maxIssuerURL {
		return "it is too long"
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '%' {
			return "it has a character that is not allowed (an international host name goes in its ASCII form, xn--...)"
		}
	}
	if strings.ContainsAny(s, "?#") {
		return "it has a query or a fragment"
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme == "" || u.Opaque != "" || u.Hostname() == "":
		return "it is not an absolute URL such as https://idp.example.com"
	case u.User != nil || strings.Contains(u.Host, "@"):
		return "it has a user name"
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		return "it must begin with https://"
	case u.Scheme == "http" && !dev:
		return "it must begin with https:// (plain http on loopback is for --dev)"
	case u.Scheme != "https" && u.Scheme != "http":
		return "it must begin with https://"
	}
	if c := canonicalForm(u); c != s {
		return "its canonical form is " + c
	}
	return ""
}

func canonicalForm(u *url.URL) string {
	host := strings.TrimRight(strings.ToLower(u.Hostname()), ".")
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := u.Port(); port != "" && (u.Scheme != "https" || port != "443") && (u.Scheme != "http" || port != "80") {
		host += ":" + port
	}
	p := u.Path
	if p != "" {
		clean := path.Clean(p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		p = clean
	}
	return u.Scheme + "://" + host + p
}

func jwksURIFlaw(s string, dev bool) string {
	if why := returnURLFlaw(s); why != "" {
		return why
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http":
		return "it must begin with https://"
	case u.Scheme == "http" && !dev:
		return "it must begin with https:// (plain http on loopback is for --dev)"
	}
	return ""
}
