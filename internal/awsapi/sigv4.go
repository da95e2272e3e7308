package awsapi

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// maxSkew is how far a request's date may lie from the server's clock, either way. AWS allows 15 minutes.
const maxSkew = 5 * time.Minute

const (
	amzDate    = "20060102T150405Z"
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
)

// VerifierConfig configures a Verifier. Region and Find are required.
type VerifierConfig struct {
	// Region is the only region that a signature may name.
	Region string
	// Find finds an access key. It MUST fail with fault.SignatureUnknown for a key that does not exist or that is
	// disabled; it is asked for every request, so that disabling takes effect. A signing key derived from a secret is
	// used only as long as the credential's Version stays the same, and the secret is opened only where none is cached.
	Find func(ctx context.Context, accessKeyID string) (identity.Credential, error)
	// Session finds session credentials by the id of their access key and the token in X-Amz-Security-Token. It MUST fail
	// with fault.SignatureUnknown for a token that is not of this key. nil means that there are none.
	Session func(ctx context.Context, accessKeyID string, token secret.Text) (identity.Credential, error)
	// Now is the clock, time.Now by default.
	Now func() time.Time
	// Service is the only service that a signature may name, bedrock-agentcore by default.
	Service string
}

// Verifier verifies Signature Version 4 of one service. It is safe for concurrent use.
//
// Security argument: the canonical request is built from the raw request target, so that no router's reading of a path
// differs from the signed one. Host, date, content type and every x-amz-* header must be signed. The hash is taken over
// the body's bytes, all of them read before anything acts on them; one that was signed as a header admits the body, no
// more. Comparison takes constant time, and an unknown access key costs no less work than a known one.
type Verifier struct {
	region  string
	service string
	find    func(ctx context.Context, accessKeyID string) (identity.Credential, error)
	session func(ctx context.Context, accessKeyID string, token secret.Text) (identity.Credential, error)
	now     func() time.Time
	dummy   identity.Credential
	nobody  string // an access key id that nobody has
	cache   signingKeys
}

// NewVerifier returns a Verifier.
func NewVerifier(cfg VerifierConfig) *Verifier {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Service == "" {
		cfg.Service = serviceName
	}
	dummy := secret.New(rand.Text())
	return &Verifier{
		region: cfg.Region, service: cfg.Service, find: cfg.Find, session: cfg.Session, now: cfg.Now,
		dummy:  identity.Credential{Secret: func(context.Context) (secret.Text, error) { return dummy, nil }},
		nobody: "TABARD" + rand.Text()[:14],
	}
}

// Verify returns who signed the request, whose body the caller has read, all of it.
//
// Codes: SignatureMissing, SignatureInvalid, SignatureUnknown, and what Find and the credential's Secret fail with. The
// messages say which part of the request is wrong and never what we hold.
func (v *Verifier) Verify(r *http.Request, body []byte) (access.Caller, error) {
	_, rest, err := v.Begin(r)
	if err != nil {
		return access.Caller{}, err
	}
	return rest(body)
}

// Begin does what needs no body. Where X-Amz-Content-Sha256 is the hash of one, which is signed as every x-amz-* header
// is, that is all but reading it: the signature is verified, and the caller known. Else there is no caller yet. rest is
// called with the body, all of it, and says who signed the request. The codes are Verify's.
func (v *Verifier) Begin(r *http.Request) (caller access.Caller, rest func(body []byte) (access.Caller, error), err error) {
	sig, err := v.parse(r)
	if err != nil {
		return access.Caller{}, nil, err
	}
	signed := r.Header["X-Amz-Content-Sha256"]
	if err := checkHashForm(signed); err != nil {
		return access.Caller{}, nil, err
	}
	if len(signed) == 0 {
		return access.Caller{}, func(body []byte) (access.Caller, error) {
			hash := hashOf(body)
			return v.verify(r, sig, hash[:])
		}, nil
	}
	caller, err = v.verify(r, sig, []byte(signed[0]))
	return caller, func(body []byte) (access.Caller, error) {
		if hash := hashOf(body); !hmac.Equal([]byte(signed[0]), hash[:]) {
			return access.Caller{}, fault.New(fault.SignatureInvalid, "X-Amz-Content-Sha256 is not the hash of the body")
		}
		return caller, nil
	}, err
}

func hashOf(body []byte) (out [2 * sha256.Size]byte) {
	sum := sha256.Sum256(body)
	hex.Encode(out[:], sum[:])
	return out
}

// parse checks all that needs neither key nor body.
func (v *Verifier) parse(r *http.Request) (*signature, error) {
	if presigned(r.URL.RawQuery) {
		return nil, fault.New(fault.SignatureInvalid, "presigned requests are not accepted, sign the Authorization header")
	}
	headers := r.Header["Authorization"]
	switch {
	case len(headers) == 0:
		return nil, fault.New(fault.SignatureMissing, "the request has no Authorization header")
	case len(headers) > 1:
		return nil, fault.New(fault.SignatureInvalid, "the request has %d Authorization headers", len(headers))
	}
	sig, err := parseAuthorization(headers[0])
	if err != nil {
		return nil, err
	}
	if err := v.checkScope(r, sig); err != nil {
		return nil, err
	}
	if err := sig.checkSigned(r.Header); err != nil {
		return nil, err
	}
	if n := len(r.Header["X-Amz-Security-Token"]); n > 1 {
		return nil, fault.New(fault.SignatureInvalid, "the request has %d X-Amz-Security-Token headers", n)
	}
	return sig, nil
}

// checkScope checks the date and the credential scope.
func (v *Verifier) checkScope(r *http.Request, sig *signature) error {
	dates := r.Header["X-Amz-Date"]
	if len(dates) != 1 {
		return fault.New(fault.SignatureInvalid, "the request has %d X-Amz-Date headers, one is required", len(dates))
	}
	at, err := time.Parse(amzDate, dates[0])
	if err != nil || len(dates[0]) != len(amzDate) {
		return fault.New(fault.SignatureInvalid, "the X-Amz-Date header is not of the form YYYYMMDDTHHMMSSZ")
	}
	if off := at.Sub(v.now()); off > maxSkew || off < -maxSkew {
		side := "ahead of"
		if off < 0 {
			side, off = "behind", -off
		}
		return fault.New(fault.SignatureInvalid, "the request's date is %d minutes %s the server's clock, 5 are allowed", int64((off+time.Minute-1)/time.Minute), side)
	}
	sig.date = dates[0]
	switch {
	case sig.day != dates[0][:8]:
		return fault.New(fault.SignatureInvalid, "the credential scope's date is not the day of X-Amz-Date")
	case sig.region != v.region:
		return fault.New(fault.SignatureInvalid, "the credential scope's region %q is not %q", clip(sig.region), v.region)
	case sig.service != v.service:
		return fault.New(fault.SignatureInvalid, "the credential scope's service %q is not %q", clip(sig.service), v.service)
	}
	return nil
}

// verify checks the signature over a body of the given hash.
func (v *Verifier) verify(r *http.Request, sig *signature, bodyHash []byte) (access.Caller, error) {
	ctx := r.Context()
	cred, unknown := v.credential(r, sig.accessKey)
	known := unknown == nil
	if !known {
		if !errors.Is(unknown, fault.SignatureUnknown) {
			return access.Caller{}, unknown
		}
		cred = v.dummy
	}
	key, err := v.signingKey(ctx, sig, cred, known)
	if err != nil {
		return access.Caller{}, err
	}
	matches, err := sig.matches(r, key, bodyHash)
	switch {
	case err != nil:
		return access.Caller{}, err
	case !known:
		return access.Caller{}, unknown
	case !matches:
		v.asUnknown(ctx, sig)
		return access.Caller{}, fault.New(fault.SignatureInvalid, "the signature does not match: check the secret access key, and that no proxy changes host, path, headers or body")
	}
	if cred.Used != nil {
		cred.Used()
	}
	return cred.Caller, nil
}

// asUnknown does what an unknown access key costs beyond a known one, of which row and signing key are in memory: a
// read of the database and a derivation. Else a wrong signature would tell by its time which access key ids there are
// (threat F16).
func (v *Verifier) asUnknown(ctx context.Context, sig *signature) {
	_, _ = v.find(ctx, v.nobody) // it is not there
	_, _ = v.signingKey(ctx, sig, v.dummy, false)
}

// credential finds what the access key is: the header of a session token, which checkSigned has seen to be signed, says
// where.
func (v *Verifier) credential(r *http.Request, accessKey string) (identity.Credential, error) {
	tokens, ok := r.Header["X-Amz-Security-Token"]
	switch {
	case !ok:
		return v.find(r.Context(), accessKey)
	case v.session == nil:
		return identity.Credential{}, fault.New(fault.SignatureUnknown, "the session token in x-amz-security-token is not of this server")
	}
	return v.session(r.Context(), accessKey, secret.New(tokens[0]))
}

// checkHashForm refuses what cannot be the hash of a body.
func checkHashForm(headers []string) error {
	switch {
	case len(headers) == 0:
		return nil
	case len(headers) > 1:
		return fault.New(fault.SignatureInvalid, "the request has %d X-Amz-Content-Sha256 headers", len(headers))
	case headers[0] == "UNSIGNED-PAYLOAD" || strings.HasPrefix(headers[0], "STREAMING-"):
		return fault.New(fault.SignatureInvalid, "the payload must be signed, %s is not accepted", clip(headers[0]))
	}
	var sum [sha256.Size]byte
	if n, err := hex.Decode(sum[:], bounded(headers[0], 2*sha256.Size)); err != nil || n != sha256.Size {
		return fault.New(fault.SignatureInvalid, "X-Amz-Content-Sha256 is not the hash of the body")
	}
	return nil
}

// signingKey returns the key derived from the credential's secret for the signature's day. What is derived for an
// unknown access key is thrown away, but derived.
func (v *Verifier) signingKey(ctx context.Context, sig *signature, cred identity.Credential, known bool) ([sha256.Size]byte, error) {
	now := v.now()
	if known {
		if key, ok := v.cache.get(cred.Caller.Account, sig.accessKey, sig.day, cred.Version, now); ok {
			return key, nil
		}
	}
	text, err := cred.Secret(ctx)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("secret of an access key: %w", err)
	}
	key := sum(sum(sum(sum([]byte("AWS4"+text.Expose()), sig.day), sig.region), sig.service), terminator)
	out := [sha256.Size]byte(key)
	if known {
		v.cache.put(cred.Caller.Account, sig.accessKey, sig.day, cred.Version, now, out)
	}
	return out, nil
}

func sum(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(data))
	return h.Sum(nil)
}

// matches computes the signature and compares.
func (s *signature) matches(r *http.Request, key [sha256.Size]byte, bodyHash []byte) (bool, error) {
	var canonical bytes.Buffer
	canonical.Grow(1024)
	query, other, err := canonicalQueries(r.URL.RawQuery)
	if err != nil {
		return false, err
	}
	if err := s.writeCanonical(&canonical, r, query, bodyHash); err != nil {
		return false, err
	}
	if s.equals(key, canonical.Bytes()) {
		return true, nil
	}
	if other == "" {
		return false, nil
	}
	canonical.Reset()
	if err := s.writeCanonical(&canonical, r, other, bodyHash); err != nil {
		return false, err
	}
	return s.equals(key, canonical.Bytes()), nil
}

func (s *signature) equals(key [sha256.Size]byte, canonical []byte) bool {
	hash := sha256.Sum256(canonical)
	toSign := make([]byte, 0, 192)
	toSign = append(toSign, algorithm+"\n"...)
	toSign = append(toSign, s.date...)
	toSign = append(toSign, '\n')
	toSign = append(toSign, s.scope...)
	toSign = append(toSign, '\n')
	toSign = hex.AppendEncode(toSign, hash[:])
	h := hmac.New(sha256.New, key[:])
	_, _ = h.Write(toSign)
	var out [sha256.Size]byte
	return hmac.Equal(h.Sum(out[:0]), s.mac[:])
}

// clip bounds what is quoted back to the caller.
func clip(s string) string { return s[:min(len(s), 64)] }
