package keyring

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Metadata is where an issuer's discovery document leads (OpenID Connect Discovery §3). Its addresses are not checked,
// and "" where it names none.
type Metadata struct{ Authorization, Token, UserInfo, JWKS string }

// MetadataSource reads what issuers publish about themselves, through the guarded dialer.
type MetadataSource interface {
	// IssuerMetadata reads the issuer's discovery document, which may be ten minutes old unless anew. Its "issuer" MUST
	// equal issuer. Invalid means that it cannot be used, Unavailable that there was no answer.
	IssuerMetadata(ctx context.Context, account access.Account, issuer string, anew bool) (Metadata, error)
}

// Pins keeps the origin of each endpoint of an issuer as it was when its metadata was first believed.
type Pins interface {
	// PinIssuer sets the origin where there is none, and returns what it is afterwards.
	PinIssuer(ctx context.Context, account access.Account, issuer, endpoint, origin string) (string, error)
}

// Names of endpoints in pins and in sentences.
const (
	KeysPin         = "keys"
	WorkloadKeysPin = "workload-keys" // of an issuer of workloads' tokens
	UserInfoPin     = "userinfo"
)

// Origin is the scheme and host of an address in one form, or "" for what is no address.
func Origin(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	host, port := strings.TrimRight(strings.ToLower(u.Hostname()), "."), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" && (u.Scheme != "https" || port != "443") && (u.Scheme != "http" || port != "80") {
		host += ":" + port
	}
	return u.Scheme + "://" + host
}

// Endpoint is an address without its query, in one form: servers read the spellings of a path as one, so that what is
// told apart by them is not told apart.
func Endpoint(address string) string {
	u, err := url.Parse(address)
	if o := Origin(address); err == nil && o != "" {
		return o + (&url.URL{Path: path.Clean("/" + u.Path)}).EscapedPath()
	}
	return ""
}

// Unmoved is nil where the address has the origin that was pinned, and else Denied, with what moved and the command
// that accepts it (threat M08). Hosts are in the cause only.
func Unmoved(issuer, endpoint, address, pinned, accept string) error {
	if now := Origin(address); now != pinned || now == "" {
		return fault.Wrap(fault.Denied, fmt.Errorf("from %q to %q", pinned, now),
			"the metadata of the issuer %s moved its %s endpoint to another host: an administrator accepts that by %s", issuer, endpoint, accept)
	}
	return nil
}

// Hold holds the address that an issuer's metadata names for an endpoint against its pin, or pins it.
func Hold(ctx context.Context, pins Pins, account access.Account, issuer, endpoint, address string) error {
	if Origin(address) == "" {
		return fault.New(fault.Invalid, "the metadata of the issuer %s names no usable %s endpoint", issuer, endpoint)
	}
	pinned, err := pins.PinIssuer(ctx, account, issuer, endpoint, Origin(address))
	if err != nil {
		return err
	}
	return Unmoved(issuer, endpoint, address, pinned, "tabard issuer accept-endpoints URL")
}

// Pinned makes the ring follow metadata only to the origin that is pinned under the name.
func (r *Ring[K]) Pinned(m MetadataSource, pins Pins, name string) *Ring[K] {
	r.metadata, r.pins, r.pin = m, pins, name
	return r
}

// address is where the issuer's keys are, or "" where the source finds that out.
func (r *Ring[K]) address(ctx context.Context, id Issuer) (string, error) {
	if id.JWKSURI != "" || r.metadata == nil {
		return id.JWKSURI, nil
	}
	m, err := r.metadata.IssuerMetadata(ctx, id.Account, id.URL, false)
	if err == nil {
		err = Hold(ctx, r.pins, id.Account, id.URL, r.pin, m.JWKS)
	}
	if c := fault.CodeOf(err); c == fault.Invalid || c == fault.Denied {
		err = fault.Wrap(fault.Unauthenticated, errors.Unwrap(err), "%s", fault.Public(err).Msg)
	}
	return m.JWKS, err
}
