package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Revoke revokes a token at e.Revocation, by RFC 7009 §2.1 or as v.Revoke says, in one request. hint is refresh_token
// or access_token. A failure is a *broker.UpstreamError; Rejected means that the provider will say the same again. An
// Invalid fault means that the endpoint may not be used.
func (c *Client) Revoke(ctx context.Context, e broker.Endpoints, p broker.Provider, v broker.Vendor, clientSecret, token secret.Text, hint string) error {
	if _, err := c.parseURL(e.Revocation); err != nil {
		return fault.Wrap(fault.Invalid, err, "the revocation endpoint of provider %s cannot be used: %s", p.Name, err)
	}
	header, body, err := c.revocation(p, v, clientSecret, token, hint)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the request to provider %s could not be written", p.Name)
	}
	method := http.MethodPost
	if v.Revoke.Method != "" {
		method = v.Revoke.Method
	}
	o, err := c.of(p.Account)
	if err != nil {
		return err
	}
	answer, err := o.send(ctx, method, e.Revocation, header, body)
	if err != nil {
		return err
	}
	sent := []secret.Text{token, clientSecret}
	if _, credentials, ok := strings.Cut(header.Get("Authorization"), " "); ok {
		sent = append(sent, secret.New(credentials))
	}
	return classifyRevocation(answer, v, sent)
}

// revocation writes the request.
func (c *Client) revocation(p broker.Provider, v broker.Vendor, clientSecret, token secret.Text, hint string) (http.Header, string, error) {
	how := v.Revoke
	v.JSONBody = v.JSONBody || how.JSON
	header := c.tokenHeader(p, v)
	if how.Bearer {
		header.Del("Content-Type") // Dropbox refuses one where there is no body
		header.Set("Authorization", "Bearer "+token.Expose())
		return header, "", nil
	}
	form := url.Values{}
	if how.Member == "" {
		form.Set("token", token.Expose())
		form.Set("token_type_hint", hint)
	} else {
		form.Set(how.Member, token.Expose())
	}
	if how.Client != "" && !p.AuthMethod.Asserts() {
		p.AuthMethod = how.Client
	}
	authenticate(header, form, p, v, clientSecret)
	body, err := encodeBody(v, form)
	return header, body, err
}

// classifyRevocation reads RFC 7009 §2.2: the status is the answer, and of the body only an error counts, or the
// vendor's own sign. Some say that the token is dead (Google invalid_token, with 400) where the RFC wants 200: then
// there is nothing left to revoke.
func classifyRevocation(a answer, v broker.Vendor, sent []secret.Text) error {
	how := v.Revoke
	succeeded := a.status >= 200 && a.status < 300
	if succeeded && how.OKMember == "" {
		return nil
	}
	e := &broker.UpstreamError{Kind: broker.Rejected, Status: a.status, Err: a.err}
	members, err := parseObject(a.body)
	if a.err == nil && err == nil {
		e.Code, e.Description, _ = parseError(members, v, sent)
	}
	switch s := a.status; {
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s == http.StatusTooEarly:
		e.Kind = broker.Busy
	case s >= 300 && s < 400:
		e.Err = errors.New("the answer is a redirect, which is not followed")
	case succeeded && (a.err != nil || err != nil): // without its sign nobody knows
		e.Kind = broker.Unknown
		if e.Err == nil {
			e.Err = err
		}
	case succeeded && string(members[how.OKMember]) == "true", s == how.DeadStatus, a.err == nil && err == nil && dead(a.body, how):
		return nil
	case busy(e.Code):
		e.Kind = broker.Busy
	}
	return e
}

// busy reports whether the code says that the vendor could not look at the token now, which some say with the status of
// a success or of a refusal: RFC 6749 §4.1.2.1, and Slack (https://docs.slack.dev/reference/methods/auth.revoke, read
// 2026-11-23). Giving up there would leave a token alive that the next try ends.
func busy(code string) bool {
	switch code {
	case "temporarily_unavailable", "server_error", "internal_error", "fatal_error", "service_unavailable", "request_timeout", "ratelimited":
		return true
	}
	return false
}

// dead reports whether the answer's code is one that says that the token was dead already.
func dead(body []byte, how broker.RevokeRecipe) bool {
	path, codes := how.DeadMember, how.Dead
	if path == "" {
		path = "/error"
	}
	if len(codes) == 0 {
		codes = []string{"invalid_token"}
	}
	at := json.RawMessage(body)
	for name := range strings.SplitSeq(path[1:], "/") {
		members, err := parseObject(at)
		if err != nil {
			return false
		}
		at = members[name]
	}
	code, ok := attribute(at)
	return ok && slices.Contains(codes, code)
}
