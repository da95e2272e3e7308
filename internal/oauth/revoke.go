package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Revoke revokes a token at e.Revocation (RFC 7009 §2.1), in one request. hint is refresh_token or access_token. A
// failure is a *broker.UpstreamError; Rejected means that the provider will say the same again. An Invalid fault means
// that the endpoint may not be used.
func (c *Client) Revoke(ctx context.Context, e broker.Endpoints, p broker.Provider, v broker.Vendor, clientSecret, token secret.Text, hint string) error {
	if _, err := c.parseURL(e.Revocation); err != nil {
		return fault.Wrap(fault.Invalid, err, "the revocation endpoint of provider %s cannot be used: %s", p.Name, err)
	}
	form := url.Values{"token": {token.Expose()}, "token_type_hint": {hint}}
	header := c.tokenHeader(p, v)
	authenticate(header, form, p, v, clientSecret)
	body, err := encodeBody(v, form)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the request to provider %s could not be written", p.Name)
	}
	answer, err := c.post(ctx, e.Revocation, header, body)
	if err != nil {
		return err
	}
	sent := []secret.Text{token, clientSecret}
	if _, credentials, ok := strings.Cut(header.Get("Authorization"), " "); ok {
		sent = append(sent, secret.New(credentials))
	}
	return classifyRevocation(answer, v, sent)
}

// classifyRevocation reads RFC 7009 §2.2: the status is the answer, and of the body only an error counts. Some say
// invalid_token (Google, with 400) where the RFC wants 200: either way the token is dead.
func classifyRevocation(a answer, v broker.Vendor, sent []secret.Text) error {
	if a.status >= 200 && a.status < 300 {
		return nil
	}
	e := &broker.UpstreamError{Kind: broker.Rejected, Status: a.status, Err: a.err}
	if members, err := parseObject(a.body); a.err == nil && err == nil {
		e.Code, e.Description, _ = parseError(members, v, sent)
	}
	switch s := a.status; {
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s == http.StatusTooEarly:
		e.Kind = broker.Busy
	case s >= 300 && s < 400:
		e.Err = errors.New("the answer is a redirect, which is not followed")
	case e.Code == "invalid_token":
		return nil
	}
	return e
}
