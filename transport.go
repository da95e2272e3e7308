package tabard

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Transport returns a RoundTripper that presents a token with each request, for the user in the request's own context:
// one transport serves all users. A nil base is http.DefaultTransport.
//
// It asks the service for each request. If the resource answers 401, and the body can be sent again
// (http.Request.GetBody), it reports the token as Client.ReportInvalid does, and repeats the request once if that
// brings another token. Where only a new consent helps, that is the error. A 401 whose WWW-Authenticate blames
// something else than the token is not reported. The token goes only over https, or to loopback; only to the
// declaration's Hosts, if it names any; and not along with a redirect to another host. Errors are as Client.Token's;
// http.Client wraps them so that errors.AsType still finds them.
func (c *Client) Transport(need OAuth2, base http.RoundTripper) http.RoundTripper {
	return &transport{need: need, base: base, fetch: func(ctx context.Context, refused *Token, report bool) (*Token, error) {
		if report {
			return c.ReportInvalid(ctx, need, refused)
		}
		return c.Token(ctx, need)
	}}
}

type transport struct {
	need  OAuth2
	base  http.RoundTripper                                                      // nil: http.DefaultTransport
	fetch func(ctx context.Context, refused *Token, report bool) (*Token, error) // refused by the resource, or nil
}

// RoundTrip implements http.RoundTripper. It leaves req as it is, and closes its body also when it fails.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if redirectedAway(req) {
		return t.next().RoundTrip(req)
	}
	tok, err := t.authorize(req)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	resp, err := t.send(req, tok)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || !replayable(req) {
		return resp, err
	}
	again, err := t.fetch(req.Context(), tok, blamesToken(resp.Header))
	if errors.Is(err, ErrThrottled) {
		return resp, nil // it was reported just now, and to no avail: the 401 is the last word
	}
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	if again.AccessToken == tok.AccessToken {
		return resp, nil // the service has no better one: the 401 is the resource's last word
	}
	second, err := rewound(req)
	if err != nil {
		return resp, nil
	}
	_ = resp.Body.Close()
	return t.send(second, again)
}

func (t *transport) authorize(req *http.Request) (*Token, error) {
	if err := t.allowed(req.URL); err != nil {
		return nil, err
	}
	return t.fetch(req.Context(), nil, false)
}

// allowed refuses addresses that the token must not travel to (RFC 6750 section 5.3).
func (t *transport) allowed(u *url.URL) error {
	clear := func(h string) bool {
		name, ok := strings.CutPrefix(h, "http://")
		return ok && u.Scheme == "http" && sameHost(u, name)
	}
	if slices.ContainsFunc(t.need.Hosts, clear) {
		return nil
	}
	if u.Scheme != "https" && !loopback(u.Hostname()) {
		return invalid("%s: the token is not sent to %q: only over https, or to loopback", t.need.Provider, u.Scheme+"://"+u.Host)
	}
	if len(t.need.Hosts) == 0 || slices.ContainsFunc(t.need.Hosts, func(h string) bool { return sameHost(u, h) }) {
		return nil
	}
	return invalid("%s: the token is not sent to %q: it is not one of the declaration's hosts", t.need.Provider, u.Host)
}

// send adds the token to a copy: a RoundTripper must not change its request, and the header must not be found in
// Response.Request later.
func (t *transport) send(req *http.Request, tok *Token) (*http.Response, error) {
	out := req.Clone(req.Context())
	tok.SetAuthHeader(out)
	resp, err := t.next().RoundTrip(out)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func (t *transport) next() http.RoundTripper {
	if t.base == nil {
		return http.DefaultTransport
	}
	return t.base
}

// rewound is req with its body from the start.
func rewound(req *http.Request) (*http.Request, error) {
	second := req.Clone(req.Context())
	if req.GetBody == nil {
		return second, nil
	}
	body, err := req.GetBody()
	second.Body = body
	return second, err
}

func replayable(req *http.Request) bool {
	return req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
}

// redirectedAway reports whether req follows a redirect away from where the program sent its first request. net/http
// drops an Authorization header there; one that is added down here would arrive.
func redirectedAway(req *http.Request) bool {
	first := req
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	return !sameHost(req.URL, first.URL.Host)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sameHost reports whether u goes to host, with the scheme's own port where none is named.
func sameHost(u *url.URL, host string) bool {
	named, err := url.Parse(u.Scheme + "://" + host)
	return err == nil && strings.EqualFold(named.Hostname(), u.Hostname()) && portOf(named) == portOf(u)
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}
