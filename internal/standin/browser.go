package standin

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"time"
)

// maxHops bounds the redirects of one step.
const maxHops = 20

// Browser is a scripted person: it keeps cookies, follows redirects, fills in forms and remembers where it has been.
// One Browser is one person at one machine; it is not safe for concurrent use.
type Browser struct {
	// Stop, if set, is asked about each address that a redirect leads to. Where it says true the browser does not go: the
	// page it returns has that address, with its query, and nothing else.
	Stop func(*url.URL) bool

	client *http.Client
	chain  []Hop
}

// Hop is one request that the browser made, without its query, where codes and states are.
type Hop struct {
	Method, Host, Path string
	// Status is what was answered; 0 for an address where Stop ended the walk.
	Status int
}

// String is "GET 127.0.0.1:8081/login 200".
func (h Hop) String() string { return fmt.Sprintf("%s %s%s %d", h.Method, h.Host, h.Path, h.Status) }

// NewBrowser returns a browser with no cookies that gives each request 30 seconds.
func NewBrowser() *Browser {
	jar, _ := cookiejar.New(nil) // fails for no input
	return &Browser{client: &http.Client{Jar: jar, Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Page is where a walk ended. Its status may be an error's: look at it.
type Page struct {
	URL    *url.URL
	Status int
	Header http.Header
	Body   string
	forms  []form
}

// Chain returns every request since the browser was made, in order.
func (b *Browser) Chain() []Hop { return slices.Clone(b.chain) }

// Client returns an HTTP client with this browser's cookies that follows no redirects, for a step no method here
// covers.
func (b *Browser) Client() *http.Client { return b.client }

// Visit opens an address and follows redirects. The error is about not reaching a server.
func (b *Browser) Visit(ctx context.Context, address string) (*Page, error) {
	return b.fetch(ctx, http.MethodGet, address, nil)
}

// Submit sends the page's first form with these values over the form's own; a button is a value like another. A value
// list that is empty leaves the field out, as an unticked box.
func (b *Browser) Submit(ctx context.Context, page *Page, values url.Values) (*Page, error) {
	if len(page.forms) == 0 {
		return nil, fmt.Errorf("standin: %s has no form", page.URL.Path)
	}
	f := page.forms[0]
	target, err := page.URL.Parse(f.action)
	if err != nil {
		return nil, fmt.Errorf("standin: the form of %s leads nowhere: %w", page.URL.Path, err)
	}
	fields := maps.Clone(f.fields)
	maps.Copy(fields, values)
	if f.method == http.MethodGet {
		target.RawQuery = fields.Encode()
		return b.fetch(ctx, http.MethodGet, target.String(), nil)
	}
	return b.fetch(ctx, http.MethodPost, target.String(), fields)
}

// LogIn starts at an address that leads to a login page of either provider (or further: a session skips the page), logs
// in as the user, and returns where that ends. A wrong password ends at the login page, with status 401.
func (b *Browser) LogIn(ctx context.Context, start string, user User) (*Page, error) {
	page, err := b.Visit(ctx, start)
	if err != nil || !page.has("password") {
		return page, err
	}
	return b.Submit(ctx, page, url.Values{"username": {user.Name}, "password": {user.Password.Expose()}})
}

// Approve starts at an address that leads to the calendar provider, logs in there if asked, and allows what the consent
// page names, or, if scopes are given, only those. It returns where that ends, usually the client's page.
func (b *Browser) Approve(ctx context.Context, start string, user User, scopes ...string) (*Page, error) {
	values := url.Values{"decision": {"allow"}}
	if len(scopes) > 0 {
		values["scope"] = scopes
	}
	return b.decide(ctx, start, user, values)
}

// Deny is like Approve and says no.
func (b *Browser) Deny(ctx context.Context, start string, user User) (*Page, error) {
	return b.decide(ctx, start, user, url.Values{"decision": {"deny"}})
}

func (b *Browser) decide(ctx context.Context, start string, user User, values url.Values) (*Page, error) {
	page, err := b.LogIn(ctx, start, user)
	if err != nil {
		return nil, err
	}
	if !page.has("decision") {
		return page, fmt.Errorf("standin: %s%s answered %d and is no consent page", page.URL.Host, page.URL.Path, page.Status)
	}
	return b.Submit(ctx, page, values)
}

// fetch makes one request and follows redirects as browsers do: 307 and 308 repeat the request, others become a GET.
func (b *Browser) fetch(ctx context.Context, method, address string, fields url.Values) (*Page, error) {
	for range maxHops {
		var body io.Reader
		if method == http.MethodPost {
			body = strings.NewReader(fields.Encode())
		}
		req, err := http.NewRequestWithContext(ctx, method, address, body)
		if err != nil {
			return nil, fmt.Errorf("standin: %w", err)
		}
		if method == http.MethodPost {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		page, location, err := b.once(req)
		if err != nil || location == nil {
			return page, err
		}
		if page.Status != http.StatusTemporaryRedirect && page.Status != http.StatusPermanentRedirect {
			method, fields = http.MethodGet, nil
		}
		if b.Stop != nil && b.Stop(location) {
			b.chain = append(b.chain, Hop{Method: method, Host: location.Host, Path: location.Path})
			return &Page{URL: location}, nil
		}
		address = location.String()
	}
	return nil, fmt.Errorf("standin: more than %d redirects", maxHops)
}

// once makes one request; location is where it redirects, or nil.
func (b *Browser) once(req *http.Request) (*Page, *url.URL, error) {
	resp, err := b.client.Do(req)
	if err != nil {
		// The error of net/http quotes the address with its query, which may hold a code.
		return nil, nil, fmt.Errorf("standin: %s %s%s: %w", req.Method, req.URL.Host, req.URL.Path, unwrapURL(err))
	}
	defer func() { _ = resp.Body.Close() }()
	b.chain = append(b.chain, Hop{Method: req.Method, Host: req.URL.Host, Path: req.URL.Path, Status: resp.StatusCode})
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, nil, fmt.Errorf("standin: %s%s: %w", req.URL.Host, req.URL.Path, err)
	}
	page := &Page{URL: req.URL, Status: resp.StatusCode, Header: resp.Header, Body: string(body)}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.Header.Get("Location") != "" {
		location, err := resp.Location()
		if err != nil {
			return nil, nil, fmt.Errorf("standin: %s%s redirects to an address that is none", req.URL.Host, req.URL.Path)
		}
		return page, location, nil
	}
	page.forms = parseForms(page.Body)
	return page, nil, nil
}

func unwrapURL(err error) error {
	if u, ok := err.(*url.Error); ok {
		return u.Err
	}
	return err
}

// has reports whether the first form has a field or button of this name.
func (p *Page) has(name string) bool {
	return len(p.forms) > 0 && p.forms[0].names[name]
}
