package awsapi

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Clients authenticates the clients of OAuth's endpoints: as the operations do, or by the access key as user and
// password (RFC 6749 §2.3.1), which every OAuth library can. It is safe for concurrent use.
//
// Security argument: the secret is compared in constant time, by its hash, and an access key id that is not known costs
// a comparison too and is answered in the same words (threat F16). Failures are counted together with those of
// signatures.
type Clients struct {
	server *server
	dummy  [sha256.Size]byte
}

// NewClients returns a Clients for the same Config as New's.
func NewClients(c Config) *Clients {
	s := &server{Config: c, admission: c.Admission}
	s.verifier = NewVerifier(VerifierConfig{Region: c.Region, Now: c.Now, Find: c.Identity.Credential, Session: s.Federation.Credential})
	if s.admission == nil {
		s.admission = NewAdmission(c.Accounts, c.Now)
	}
	return &Clients{server: s, dummy: sha256.Sum256([]byte(rand.Text()))}
}

// Authenticate returns who sent the request, and its body, which it reads by read, once, where the head proves nothing
// wrong: a password is compared before. Whatever is wrong with an access key that came as user and password is one
// SignatureUnknown fault.
func (c *Clients) Authenticate(w http.ResponseWriter, r *http.Request, read func() ([]byte, error)) (access.Caller, []byte, error) {
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); !strings.EqualFold(scheme, "Basic") {
		return c.server.enter(w, r, c.server.verifier, read)
	}
	caller, err := c.basic(r)
	if caller, err = c.server.admission.Admit(w, r, caller, err); err != nil {
		leaveUnread(w, r)
		return caller, nil, err
	}
	useReserve(r, Holder{Name: "account " + string(caller.Account)})
	body, err := read()
	return caller, body, err
}

func (c *Clients) basic(r *http.Request) (access.Caller, error) {
	unknown := fault.New(fault.SignatureUnknown, "the access key id or the secret access key is wrong")
	user, password, ok := r.BasicAuth()
	if !ok || len(r.Header["Authorization"]) != 1 || len(user) > 3*maxAccessKeyID {
		return access.Caller{}, unknown
	}
	id, err := url.QueryUnescape(user)
	if err != nil {
		id = user
	}
	cred, err := c.server.Identity.Credential(r.Context(), id)
	known := err == nil
	if !known && !errors.Is(err, fault.SignatureUnknown) {
		return access.Caller{}, err
	}
	want := c.dummy
	if known {
		text, err := cred.Secret(r.Context())
		if err != nil {
			return access.Caller{}, err
		}
		want = sha256.Sum256([]byte(text.Expose()))
	}
	if match := matchesPassword(want, secret.New(password)); !known || !match {
		return access.Caller{}, unknown
	}
	if cred.Used != nil {
		cred.Used()
	}
	return cred.Caller, nil
}

// matchesPassword compares the hash of a secret with that of a password, as it is and as a form would have encoded it:
// RFC 6749 §2.3.1 wants the latter, and half of the clients do the former.
func matchesPassword(want [sha256.Size]byte, password secret.Text) bool {
	raw := sha256.Sum256([]byte(password.Expose()))
	decoded := raw
	if text, err := url.QueryUnescape(password.Expose()); err == nil {
		decoded = sha256.Sum256([]byte(text))
	}
	return subtle.ConstantTimeCompare(want[:], raw[:])|subtle.ConstantTimeCompare(want[:], decoded[:]) == 1
}
