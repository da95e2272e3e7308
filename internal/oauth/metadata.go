package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

const (
	metadataFresh  = 10 * time.Minute // a document is used without asking again
	metadataStale  = 24 * time.Hour   // and, while it cannot be fetched, this long
	metadataRetry  = 30 * time.Second // between fetches that fail
	metadataBounds = 256              // documents kept of one account
	maxMethods     = 32               // names that a document may list
)

// document is what we use of an authorization server's metadata (RFC 8414 §2, RFC 9207 §3, OpenID Connect Discovery
// §3). Its addresses are not checked yet.
type document struct {
	Issuer        string
	Authorization string
	Token         string
	Revocation    string
	JWKS          string
	UserInfo      string
	PKCEMethods   []string // nil where the metadata does not say
	IssInResponse bool
}

// JWKS returns the JWK set document of the account's issuer, at most 1 MiB, fetched anew each time: from jwksURI, or
// where that is "" from the jwks_uri of the issuer's discovery document (which may be ten minutes old). It returns
// Unavailable where the issuer does not answer and Unauthenticated where its answer, or an address it names, cannot be
// used.
func (c *Client) JWKS(ctx context.Context, account access.Account, issuer, jwksURI string) ([]byte, error) {
	o, err := c.of(account)
	if err != nil {
		return nil, err
	}
	if jwksURI == "" {
		d, err := o.discover(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
		if err != nil {
			return nil, unusableKeys(err, "the metadata of the issuer cannot be used")
		}
		if d.Issuer != issuer {
			return nil, fault.New(fault.Unauthenticated, "the metadata of the issuer cannot be used: it names another issuer")
		}
		jwksURI = d.JWKS
	}
	if _, err := c.parseURL(jwksURI); err != nil {
		return nil, fault.Wrap(fault.Unauthenticated, err, "the address of the issuer's keys cannot be used: %s", err)
	}
	body, err := o.get(ctx, "the issuer's keys", jwksURI)
	if err != nil {
		return nil, unusableKeys(err, "the issuer's keys cannot be used")
	}
	set, err := parseObject(body)
	if err != nil || len(set["keys"]) == 0 || set["keys"][0] != '[' {
		return nil, fault.New(fault.Unauthenticated, "the issuer's keys cannot be used: the answer is not a JWK set")
	}
	return body, nil
}

// unusableKeys turns Invalid into what identity.KeySource promises, and leaves Unavailable.
func unusableKeys(err error, msg string) error {
	if errors.Is(err, fault.Unavailable) {
		return err
	}
	return fault.Wrap(fault.Unauthenticated, err, "%s", msg)
}

// get fetches a document. Invalid means that the answer cannot be used, Unavailable that there was none. The messages
// do not tell a closed port from a refused address or a name that does not exist.
func (o *outbound) get(ctx context.Context, what, address string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s cannot be fetched: the address is malformed", what)
	}
	req.Header.Set("Accept", mediaTypeJSON)
	req.Header.Set("User-Agent", o.agent)
	// RoundTrip, and not a http.Client: it follows no redirect and has no cookies.
	resp, err := o.connections().documents.RoundTrip(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, cause(err), "%s cannot be fetched now", what)
	}
	defer resp.Body.Close()
	switch s := resp.StatusCode; {
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout:
		return nil, fault.New(fault.Unavailable, "%s cannot be fetched now: the answer is HTTP %d", what, s)
	case s >= 300 && s < 400:
		return nil, fault.New(fault.Invalid, "%s cannot be used: the answer is a redirect (HTTP %d), which is not followed", what, s)
	case s != http.StatusOK:
		return nil, fault.New(fault.Invalid, "%s cannot be used: the answer is HTTP %d", what, s)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, cause(err), "%s cannot be fetched now", what)
	}
	if len(body) > maxDocument {
		return nil, fault.New(fault.Invalid, "%s cannot be used: the answer is larger than 1 MiB", what)
	}
	return body, nil
}

// fetchMetadata gets and parses a metadata document. It does not look at the issuer: that depends on who asks.
func (o *outbound) fetchMetadata(ctx context.Context, address string) (document, error) {
	body, err := o.get(ctx, "the provider's metadata", address)
	if err != nil {
		return document{}, err
	}
	d, err := parseDocument(body)
	if err != nil {
		return document{}, fault.Wrap(fault.Invalid, err, "the provider's metadata cannot be used: the answer is not a metadata document")
	}
	return d, nil
}

func parseDocument(body []byte) (document, error) {
	members, err := parseObject(body)
	if err != nil {
		return document{}, err
	}
	var d document
	for name, to := range map[string]any{
		"issuer":                           &d.Issuer,
		"authorization_endpoint":           &d.Authorization,
		"token_endpoint":                   &d.Token,
		"jwks_uri":                         &d.JWKS,
		"userinfo_endpoint":                &d.UserInfo,
		"revocation_endpoint":              &d.Revocation,
		"code_challenge_methods_supported": &d.PKCEMethods,
		"authorization_response_iss_parameter_supported": &d.IssInResponse,
	} {
		if raw, ok := members[name]; ok && json.Unmarshal(raw, to) != nil {
			return document{}, errors.New(name + " has the wrong type")
		}
	}
	if d.Issuer == "" {
		return document{}, errors.New("no issuer")
	}
	return d, d.bound()
}

// bound keeps a document that is remembered small. An address that is too long is refused where it is used, and stays
// too long.
func (d *document) bound() error {
	for _, address := range []*string{&d.Issuer, &d.Authorization, &d.Token, &d.Revocation, &d.JWKS, &d.UserInfo} {
		*address = strings.Clone((*address)[:min(len(*address), maxURLLength+1)])
	}
	if len(d.PKCEMethods) > maxMethods || slices.ContainsFunc(d.PKCEMethods, func(m string) bool { return len(m) > maxURLLength }) {
		return errors.New("code_challenge_methods_supported is too long")
	}
	return nil
}

// metadataCache keeps metadata documents of one account by URL.
type metadataCache struct {
	now   func() time.Time
	fetch func(context.Context, string) (document, error)
	group singleflight.Group

	mu      sync.Mutex // guards entries
	entries map[string]metadataEntry
}

type metadataEntry struct {
	doc     document
	fetched time.Time // zero where it never was
	failed  time.Time // of the last fetch, where that failed
	err     error
}

func newMetadataCache(now func() time.Time, fetch func(context.Context, string) (document, error)) *metadataCache {
	return &metadataCache{now: now, fetch: fetch, entries: map[string]metadataEntry{}}
}

// get returns the document at url: fetched less than metadataFresh ago, or fetched now, or as old as metadataStale
// where fetching fails. After a failure it does not fetch again for metadataRetry.
func (m *metadataCache) get(ctx context.Context, url string) (document, error) {
	if e, ok := m.settled(url); ok {
		return e.answer(m.now())
	}
	// The fetch serves everybody who waits, so one caller's cancellation does not end it. It ends by its own timeout.
	got, _, _ := m.group.Do(url, func() (any, error) { return m.refresh(context.WithoutCancel(ctx), url), nil })
	return got.(metadataEntry).answer(m.now())
}

// settled returns the entry of url where now is no time to fetch again.
func (m *metadataCache) settled(url string) (metadataEntry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[url]
	now := m.now()
	return e, now.Sub(e.fetched) < metadataFresh || now.Sub(e.failed) < metadataRetry
}

func (m *metadataCache) refresh(ctx context.Context, url string) metadataEntry {
	if e, ok := m.settled(url); ok {
		return e // another caller's fetch ended between our look and our turn
	}
	doc, err := m.fetch(ctx, url)
	m.mu.Lock()
	defer m.mu.Unlock()
	e, known := m.entries[url]
	if err != nil {
		e.failed, e.err = m.now(), err
	} else {
		e = metadataEntry{doc: doc, fetched: m.now()}
	}
	if !known && len(m.entries) >= metadataBounds {
		m.dropOldestLocked()
	}
	m.entries[url] = e
	return e
}

func (m *metadataCache) dropOldestLocked() {
	var oldest string
	var at time.Time
	for url, e := range m.entries {
		used := e.fetched
		if e.failed.After(used) {
			used = e.failed
		}
		if oldest == "" || used.Before(at) {
			oldest, at = url, used
		}
	}
	delete(m.entries, oldest)
}

// answer prefers a document that is old to an error, for a while.
func (e metadataEntry) answer(now time.Time) (document, error) {
	if e.err != nil && (e.fetched.IsZero() || now.Sub(e.fetched) >= metadataStale) {
		return document{}, e.err
	}
	return e.doc, nil
}
