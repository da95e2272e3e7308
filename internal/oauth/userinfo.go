package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// UserInfo asks an issuer's UserInfo endpoint (OIDC Core §5.3.1) with the user's token as bearer. It returns the
// members of the JSON answer, of at most 64 KiB. Invalid means that the endpoint may not be used, that it does not
// accept the token, or that its answer cannot be used; Unavailable that there was none. What the issuer says beside the
// claims is not passed on: it may quote the token.
func (c *Client) UserInfo(ctx context.Context, account access.Account, endpoint string, token secret.Text) (map[string]json.RawMessage, error) {
	if _, err := c.parseURL(endpoint); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the address of the issuer's UserInfo endpoint cannot be used: %s", err)
	}
	o, err := c.of(account)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the address of the issuer's UserInfo endpoint is malformed")
	}
	req.Header.Set("Accept", mediaTypeJSON)
	req.Header.Set("User-Agent", c.agent)
	req.Header.Set("Authorization", "Bearer "+token.Expose())
	resp, err := o.connections().documents.RoundTrip(req) // follows no redirect: the token goes to this address and no other
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, cause(err), "the issuer's UserInfo endpoint does not answer now")
	}
	defer resp.Body.Close()
	return readUserInfo(resp)
}

func readUserInfo(resp *http.Response) (map[string]json.RawMessage, error) {
	switch s := resp.StatusCode; {
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout:
		return nil, fault.New(fault.Unavailable, "the issuer's UserInfo endpoint does not answer now: it said HTTP %d", s)
	case s == http.StatusUnauthorized || s == http.StatusForbidden:
		return nil, fault.New(fault.Invalid, "the issuer's UserInfo endpoint does not accept the user's token (HTTP %d): it must be an access token with the scope openid", s)
	case s != http.StatusOK:
		return nil, fault.New(fault.Invalid, "the issuer's UserInfo endpoint gave an answer that cannot be used: HTTP %d", s)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != mediaTypeJSON {
		return nil, fault.New(fault.Invalid, "the issuer's UserInfo endpoint answers in another form than JSON: signed answers are not read")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		return nil, fault.New(fault.Invalid, "the issuer's UserInfo endpoint gave an answer of more than 64 KiB")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, cause(err), "the issuer's UserInfo endpoint did not finish its answer")
	}
	claims, err := parseObject(body)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, errors.New("not one JSON object"), "the issuer's UserInfo endpoint gave an answer that cannot be used")
	}
	return claims, nil
}
