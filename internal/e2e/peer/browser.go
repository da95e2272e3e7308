package peer

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Browser is a scripted user: it keeps cookies, follows redirects, and fills in the login and consent forms of OIDC. It
// is for one goroutine. The zero value is of no use; take NewBrowser.
type Browser struct {
	User     string   // who signs in
	Password string   // what Dex asks for besides; oidc-provider asks for none
	Deny     bool     // says no on the consent page
	Reject   []string // scopes that the user unticks before allowing the rest

	Trail []string // every address visited or, for the last one, stopped at

	client *http.Client
}

// Page is where a walk ended.
type Page struct {
	URL    *url.URL
	Status int    // 0 when the walk stopped before asking for the page
	Body   string // at most 1 MiB
	Header http.Header
}

// NewBrowser returns a browser of its own, with no cookies, used by user.
func NewBrowser(user string) *Browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // cookiejar.New has no failing path
	}
	return &Browser{User: user, client: &http.Client{
		Jar:           jar,
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true}, // no idle connection outlives the test
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// formAction finds the forms of the provider's pages; the first one of the consent page allows, the second denies.
var formAction = regexp.MustCompile(`<form method="post" action="([^"]+)">`)

// Walk opens address, follows redirects and answers login and consent forms, until a page that is neither. With stopAt
// it ends as soon as the next address has that prefix, without asking for it: this is how a test reads the query that
// an application's return URL would get.
func (b *Browser) Walk(t testing.TB, address, stopAt string) Page {
	t.Helper()
	return b.walk(t, func() (*http.Request, error) { return http.NewRequestWithContext(t.Context(), "GET", address, nil) }, stopAt)
}

// Submit sends a form, and goes on as Walk does.
func (b *Browser) Submit(t testing.TB, to string, values url.Values, stopAt string) Page {
	t.Helper()
	return b.walk(t, func() (*http.Request, error) { return submit(t, to, values) }, stopAt)
}

func (b *Browser) walk(t testing.TB, next func() (*http.Request, error), stopAt string) Page {
	t.Helper()
	for range 30 {
		req, err := next()
		if err != nil {
			t.Fatalf("an address that no request can be made for: %v", err)
		}
		page := b.visit(t, req)
		target, values := b.answer(page)
		if target == "" {
			return page
		}
		to, err := page.URL.Parse(target)
		if err != nil {
			t.Fatalf("%s sends the browser to a broken address: %v", page.URL, err)
		}
		if stopAt != "" && strings.HasPrefix(to.String(), stopAt) {
			b.Trail = append(b.Trail, to.String())
			return Page{URL: to}
		}
		next = func() (*http.Request, error) { return submit(t, to.String(), values) }
	}
	t.Fatalf("the browser went in circles: %s", strings.Join(b.Trail, "\n"))
	return Page{}
}

func submit(t testing.TB, to string, values url.Values) (*http.Request, error) {
	if values == nil {
		return http.NewRequestWithContext(t.Context(), "GET", to, nil)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", to, strings.NewReader(values.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}

func (b *Browser) visit(t testing.TB, req *http.Request) Page {
	t.Helper()
	b.Trail = append(b.Trail, req.URL.String())
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatalf("browser: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Fatalf("browser: read %s: %v", req.URL, err)
	}
	return Page{URL: req.URL, Status: resp.StatusCode, Body: string(body), Header: resp.Header}
}

// answer says where page leads: a redirect (no values), a form that the user fills in, or nowhere.
func (b *Browser) answer(page Page) (target string, values url.Values) {
	if page.Status >= 300 && page.Status < 400 {
		return page.Header.Get("Location"), nil
	}
	dex := strings.HasSuffix(page.URL.Path, "/auth/local/login")
	if !dex && !strings.HasPrefix(page.URL.Path, "/interaction/") || page.Status != http.StatusOK {
		return "", nil
	}
	for _, m := range formAction.FindAllStringSubmatch(page.Body, -1) {
		action := html.UnescapeString(m[1])
		switch {
		case dex:
			return action, url.Values{"login": {b.User}, "password": {b.Password}}
		case strings.HasSuffix(action, "/login"):
			return action, url.Values{"login": {b.User}}
		case strings.HasSuffix(action, "/confirm") && !b.Deny:
			return action, url.Values{"reject": b.Reject}
		case strings.HasSuffix(action, "/deny") && b.Deny:
			return action, url.Values{"deny": {"1"}}
		}
	}
	return "", nil
}
