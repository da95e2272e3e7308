package oauth

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

// Endpoints returns p's addresses: as given inline, or as the document at p.DiscoveryURL names them, which may be ten
// minutes old (a day, while the provider does not answer). The same document always gives the same Endpoints.
//
// It returns Invalid where the addresses may not be used: not https (plain http to loopback passes in development),
// with user information or a fragment, no token endpoint, an issuer that is not the one the discovery URL was built
// from (RFC 8414 §3.3), or metadata that lists PKCE methods without S256; and Unavailable where the document cannot be
// fetched. Authorization and Revocation are "" where the metadata names none; what it names for Revocation is not
// looked at before Revoke.
func (c *Client) Endpoints(ctx context.Context, p broker.Provider) (broker.Endpoints, error) {
	e := broker.Endpoints{Issuer: p.Issuer, Authorization: p.AuthorizationEndpoint, Token: p.TokenEndpoint}
	if p.DiscoveryURL != "" {
		o, err := c.of(p.Account)
		if err != nil {
			return broker.Endpoints{}, err
		}
		d, err := o.discover(ctx, p.DiscoveryURL)
		if err != nil {
			return broker.Endpoints{}, err
		}
		if len(d.PKCEMethods) > 0 && !slices.Contains(d.PKCEMethods, "S256") {
			return broker.Endpoints{}, fault.New(fault.Invalid, "provider %s cannot be used: its metadata lists PKCE methods without S256", p.Name)
		}
		e = broker.Endpoints{Issuer: d.Issuer, Authorization: d.Authorization, Token: d.Token, Revocation: d.Revocation, IssInResponse: d.IssInResponse}
	}
	if e.Token == "" {
		return broker.Endpoints{}, fault.New(fault.Invalid, "provider %s has no token endpoint", p.Name)
	}
	for _, endpoint := range []struct{ name, url string }{{"token", e.Token}, {"authorization", e.Authorization}} {
		if endpoint.url == "" {
			continue
		}
		if _, err := c.parseURL(endpoint.url); err != nil {
			return broker.Endpoints{}, fault.Wrap(fault.Invalid, err, "the %s endpoint of provider %s cannot be used: %s", endpoint.name, p.Name, err)
		}
	}
	return e, nil
}

// discover returns the document at discoveryURL, whose issuer is the one that the URL was built from.
func (o *outbound) discover(ctx context.Context, discoveryURL string) (document, error) {
	u, err := o.parseURL(discoveryURL)
	if err != nil {
		return document{}, fault.Wrap(fault.Invalid, err, "the discovery URL cannot be used: %s", err)
	}
	issuers := issuersOf(discoveryURL)
	if len(issuers) == 0 || u.RawQuery != "" {
		return document{}, fault.New(fault.Invalid, "the discovery URL cannot be used: it has no /.well-known/openid-configuration or /.well-known/oauth-authorization-server")
	}
	d, err := o.metadata.get(ctx, discoveryURL)
	if err != nil {
		return document{}, err
	}
	if !slices.Contains(issuers, d.Issuer) {
		return document{}, fault.New(fault.Invalid, "the provider's metadata cannot be used: its issuer is not the one its discovery URL belongs to")
	}
	return d, nil
}

// issuersOf returns the issuers whose discovery URL is s. The well-known part is appended to an issuer (OpenID
// Connect Discovery §4.1) or inserted between its host and path (RFC 8414 §3.1); in both a slash that ends the issuer
// was removed, so each form belongs to two issuers.
func issuersOf(s string) []string {
	for _, name := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		i := strings.LastIndex(s, name)
		if i < 0 {
			continue
		}
		before, after := s[:i], s[i+len(name):]
		switch _, host, _ := strings.Cut(before, "://"); {
		case after == "":
			return []string{before, before + "/"}
		case after[0] == '/' && len(after) > 1 && !strings.Contains(host, "/"):
			after = strings.TrimSuffix(after, "/")
			return []string{before + after, before + after + "/"}
		}
	}
	return nil
}

// Why an address is refused. They say what is wrong and repeat nothing.
var (
	errURL      = errors.New("it is not an absolute https URL")
	errUserInfo = errors.New("it has user information")
	errFragment = errors.New("it has a fragment")
	errLong     = errors.New("it is too long")
	errHTTP     = errors.New("it is not https")
	errDevHTTP  = errors.New("it is plain http to another host than loopback")
)

// parseURL parses an address that a request or a browser is to be sent to. It checks the form only; whether the host
// may be connected to is the dialer's decision.
func (c *Client) parseURL(s string) (*url.URL, error) {
	if len(s) > maxURLLength {
		return nil, errLong
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		return nil, errURL
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errURL
		}
	}
	switch {
	case u.User != nil:
		return nil, errUserInfo
	case strings.Contains(s, "#"):
		return nil, errFragment
	case u.Scheme == "https":
		return u, nil
	case u.Scheme != "http":
		return nil, errURL
	case !c.dev:
		return nil, errHTTP
	case !loopback(u.Hostname()):
		return nil, errDevHTTP
	}
	return u, nil
}

// loopback reports whether host can only be this machine (RFC 6761 §6.3 for the name).
func loopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
