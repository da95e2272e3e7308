package standin

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
)

// formGuard stops a page of another origin from submitting our forms, logging in included: a form carries the HMAC of a
// cookie that only this browser holds.
type formGuard struct {
	cookie string
	key    [32]byte
}

// newFormGuard takes the cookie's name, which must differ between servers: browsers do not separate cookies by port.
func newFormGuard(cookie string) *formGuard {
	g := &formGuard{cookie: cookie}
	_, _ = rand.Read(g.key[:]) // never fails (crypto/rand)
	return g
}

// token returns the value of the hidden field "form" and sets the cookie if the browser has none.
func (g *formGuard) token(w http.ResponseWriter, r *http.Request) string {
	if c, err := r.Cookie(g.cookie); err == nil && c.Value != "" {
		return g.sign(c.Value)
	}
	id := rand.Text()
	http.SetCookie(w, cookie(g.cookie, id))
	return g.sign(id)
}

// valid reports whether the posted form came from a page of ours in this browser.
func (g *formGuard) valid(r *http.Request) bool {
	c, err := r.Cookie(g.cookie)
	return err == nil && c.Value != "" && hmac.Equal([]byte(g.sign(c.Value)), []byte(r.PostFormValue("form")))
}

func (g *formGuard) sign(id string) string {
	m := hmac.New(sha256.New, g.key[:])
	m.Write([]byte(id))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// cookie is a session cookie. It is not Secure, because these servers speak http on loopback.
func cookie(name, value string) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
}
