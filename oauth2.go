package tabard

import (
	"context"
	"net/url"
	"slices"
	"strings"
)

// Flow is how a token is obtained. The zero Flow is UserFederation.
type Flow string

// The flows of the API, by their names on the wire.
const (
	// UserFederation acts for a user who consented at the provider (authorization code, "3LO").
	UserFederation Flow = "USER_FEDERATION"
	// M2M is the agent itself, with nobody behind it (client credentials).
	M2M Flow = "M2M"
	// OnBehalfOf exchanges the user's own token for one of the provider (RFC 8693 or RFC 7523), without a prompt.
	OnBehalfOf Flow = "ON_BEHALF_OF_TOKEN_EXCHANGE"
)

// OAuth2 declares the provider token that a tool needs. It is plain data: declare it once, next to the tool, and
// use it with every method that takes it. It must not be changed while in use.
type OAuth2 struct {
	// Provider is the name of the credential provider, as an administrator created it.
	Provider string
	// Scopes are what the tool needs, and no more than that. Empty asks for what the provider gives by default.
	Scopes []string
	// Flow is UserFederation if empty.
	Flow Flow
	// Resources and Audiences narrow the token down to what it will be used at (RFC 8707).
	Resources []string
	Audiences []string
	// CustomParameters are added to the authorization request, such as login_hint. They cannot override OAuth's own.
	CustomParameters map[string]string
	// ReturnURL is where the browser goes after consent. Empty: WithReturnURL's, then Config.ReturnURL.
	ReturnURL string
	// Hosts are those that Transport and HTTPClient send the token to, such as www.googleapis.com (with the port, if
	// it is not the scheme's own). Empty: whatever the program asks for. Set it where a model chooses the URL. The
	// token goes over https, or to loopback; http://calendar.internal:8080 as a host allows that one without TLS.
	Hosts []string
}

// Validate checks the declaration against the API's constraints, without any call. Errors are ErrInvalid. Every use
// validates first; call it at start to learn of a mistake before the first user does.
func (d OAuth2) Validate() error {
	if err := checkProvider(d.Provider); err != nil {
		return err
	}
	switch d.flow() {
	case UserFederation, M2M, OnBehalfOf:
	default:
		return invalid("%s: Flow %q must be tabard.UserFederation, tabard.M2M or tabard.OnBehalfOf", d.Provider, d.Flow)
	}
	for _, s := range d.Scopes {
		// RFC 6749 section 3.3: a scope is printable and has no space in it.
		if s == "" || len(s) > 128 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return invalid("%s: scope %q must be 1 to 128 characters without spaces", d.Provider, s)
		}
	}
	for _, s := range slices.Concat(d.Resources, d.Audiences) {
		if s == "" || len(s) > 2048 {
			return invalid("%s: each of Resources and Audiences must be 1 to 2048 characters", d.Provider)
		}
	}
	for name, value := range d.CustomParameters {
		if !plain(name, 1, 256, "-_.") || value == "" || len(value) > 2048 {
			return invalid("%s: custom parameter %q must have a name of A-Z a-z 0-9 _ . - and a value of 1 to 2048 characters", d.Provider, name)
		}
	}
	if u, err := url.Parse(d.ReturnURL); d.ReturnURL != "" && (err != nil || u.Scheme == "") {
		return invalid("%s: ReturnURL %q must be an absolute URL", d.Provider, d.ReturnURL)
	}
	for _, h := range d.Hosts {
		if name := strings.TrimPrefix(h, "http://"); name == "" || strings.ContainsAny(name, "/@ ") {
			return invalid("%s: host %q must be a host name, with a port if need be", d.Provider, h)
		}
	}
	return nil
}

func (d OAuth2) flow() Flow {
	if d.Flow == "" {
		return UserFederation
	}
	return d.Flow
}

func (d OAuth2) get(ctx context.Context, c *Client) (*Token, error) { return c.Token(ctx, d) }

func checkProvider(name string) error {
	if name == "" {
		return invalid("a declaration needs the name of a credential provider")
	}
	if !plain(name, 1, 128, "-_") {
		return invalid("provider %q must be 1 to 128 of A-Z a-z 0-9 _ -", name)
	}
	return nil
}

// plain reports whether s has least to most characters, all of them ASCII letters, digits or of extra.
func plain(s string, least, most int, extra string) bool {
	return len(s) >= least && len(s) <= most && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(extra, r)
	})
}

// KeyFrom declares an API key by the name of its credential provider.
type KeyFrom string

// Validate checks the name, without any call.
func (k KeyFrom) Validate() error { return checkProvider(string(k)) }

func (k KeyFrom) get(ctx context.Context, c *Client) (APIKey, error) { return c.APIKey(ctx, k) }
