// Package standin has two servers that behave like other companies' servers, for the demo and for end-to-end tests: an
// OpenID provider whose access tokens are shaped as Amazon Cognito's, and a calendar provider that stands where Google
// stands.
//
// Security argument: nothing here guards anything real. Both keep their state in memory, have users whose passwords
// are printed by the demo, and belong on loopback. What they do must nevertheless be right, because a client that
// passes against a lenient server proves nothing: PKCE is demanded, redirect URIs match exactly, codes work once, and a
// refresh token shown twice ends its grant.
package standin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/tabard-id/tabard/internal/secret"
)

const (
	// maxBody bounds every request body, in bytes.
	maxBody = 256 << 10
	// interactionLifetime is how long a person may take between the authorization request and the last click.
	interactionLifetime = 10 * time.Minute
	// codeLifetime is how long an authorization code can be redeemed (RFC 6749 §4.1.2: at most 10 minutes).
	codeLifetime = 5 * time.Minute
	// maxPending bounds authorization requests that wait for a person.
	maxPending = 1000
)

// User is one account at one of the two providers.
type User struct {
	// Name is what the person types to log in, and what names the user in the methods of OIDC and Calendar.
	Name     string
	FullName string
	Email    string
	Password secret.Text
}

// Subject is the stable UUID that stands for u in the `sub` claim. It depends on Name alone, so it is the same in every
// run.
func (u User) Subject() string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://standin.tabard.example/users/"+u.Name)).String()
}

// Client is one registered OAuth client.
type Client struct {
	ID string
	// Name is what people see on the consent page. Empty means ID.
	Name string
	// Secret may be empty for a public client of the OpenID provider; the calendar provider requires one.
	Secret secret.Text
	// RedirectURIs are compared as exact strings (RFC 9700 §4.1.3).
	RedirectURIs []string
	// Scopes are allowed beyond those of OpenID Connect, at the OpenID provider. The calendar provider ignores them.
	Scopes []string
	// ClientCredentials allows the client_credentials grant, at the calendar provider.
	ClientCredentials bool
}

// OIDCUsers are alice and bob as the OpenID provider knows them. The passwords are public.
func OIDCUsers() []User {
	return []User{
		{Name: "alice", FullName: "Alice Liddell", Email: "alice@corp.example", Password: secret.New("alice-at-work")},
		{Name: "bob", FullName: "Bob Cratchit", Email: "bob@corp.example", Password: secret.New("bob-at-work")},
	}
}

// CalendarUsers are alice and bob as the calendar provider knows them: other accounts, other passwords, both public.
func CalendarUsers() []User {
	return []User{
		{Name: "alice@calendar.example", FullName: "Alice Liddell", Email: "alice@calendar.example", Password: secret.New("alice-at-home")},
		{Name: "bob@calendar.example", FullName: "Bob Cratchit", Email: "bob@calendar.example", Password: secret.New("bob-at-home")},
	}
}

// directory holds the users and clients of one provider.
type directory struct {
	users []User

	mu      sync.Mutex // guards clients
	clients map[string]Client
}

func newDirectory(users []User, clients []Client) (*directory, error) {
	d := &directory{users: slices.Clone(users), clients: map[string]Client{}}
	seen := map[string]bool{}
	for _, u := range users {
		if u.Name == "" || u.Password.IsZero() || seen[u.Name] {
			return nil, fmt.Errorf("standin: user %q needs a unique name and a password", u.Name)
		}
		seen[u.Name] = true
	}
	for _, c := range clients {
		if _, twice := d.clients[c.ID]; c.ID == "" || twice {
			return nil, fmt.Errorf("standin: client %q needs a unique id", c.ID)
		}
		if c.Name == "" {
			c.Name = c.ID
		}
		c.RedirectURIs = slices.Clone(c.RedirectURIs)
		d.clients[c.ID] = c
	}
	return d, nil
}

// user finds a user by login name.
func (d *directory) user(name string) (User, bool) {
	i := slices.IndexFunc(d.users, func(u User) bool { return u.Name == name })
	if i < 0 {
		return User{}, false
	}
	return d.users[i], true
}

// userBySubject finds a user by `sub`.
func (d *directory) userBySubject(sub string) (User, bool) {
	i := slices.IndexFunc(d.users, func(u User) bool { return u.Subject() == sub })
	if i < 0 {
		return User{}, false
	}
	return d.users[i], true
}

// logIn returns the user whose name and password these are.
func (d *directory) logIn(name string, password secret.Text) (User, bool) {
	u, ok := d.user(name)
	if !ok || !u.Password.Equal(password) {
		return User{}, false
	}
	return u, true
}

func (d *directory) client(id string) (Client, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.clients[id]
	return c, ok
}

func (d *directory) addRedirectURI(client, uri string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.clients[client]
	if !ok {
		return fmt.Errorf("standin: no client %q", client)
	}
	if !slices.Contains(c.RedirectURIs, uri) {
		// A new slice, because Client values that were handed out share the old one.
		c.RedirectURIs = append(slices.Clone(c.RedirectURIs), uri)
		d.clients[client] = c
	}
	return nil
}

// parseIssuer accepts an origin without path, because both handlers serve from the root.
func parseIssuer(issuer string) (*url.URL, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("standin: issuer %q is not an origin such as http://127.0.0.1:8080", issuer)
	}
	return u, nil
}

// hardened sets what every answer of both servers carries and bounds every body.
func hardened(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}
