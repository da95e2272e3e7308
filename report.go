package tabard

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

const opReport = "ReportTokenInvalid"

// ReportInvalid is for a caller whom the provider answered 401 to a token that had not ended: revoked there, or its end
// never told. It tells the service, which refreshes the token at once, or ends the use of one that cannot be
// refreshed; and returns the token to go on with, for the same declaration and user. It may be the same again where the
// service refreshed it less than 30 seconds ago; it is no use to report that once more.
//
// Errors are as Token's: *ConsentRequiredError where only a new consent helps, and ErrThrottled where the refresh after
// an earlier report failed just now. A token of a service that does not name its connection (AWS) cannot be reported:
// then this is Token.
//
// Report what the provider said of the token, and nothing else: a 403 is not about the token's life, and a 401 of a
// proxy is not the provider's. HTTPClient and Transport report by themselves.
func (c *Client) ReportInvalid(ctx context.Context, need OAuth2, refused *Token) (*Token, error) {
	if refused == nil {
		return nil, invalid("%s: there is no token to report", need.Provider)
	}
	if err := need.Validate(); err != nil {
		return nil, err
	}
	if refused.ConnectionID != "" {
		who := valuesOf(ctx).who
		if who.kind == nobody && need.flow() != M2M {
			return nil, noUser(need)
		}
		_, err := c.oursAs(ctx, who, opReport, map[string]string{"connectionId": refused.ConnectionID})
		// The connection may have been deleted since: then the answer to the next question says what to do.
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	return c.Token(ctx, need)
}

// blamesToken reports whether a 401 is about the token that was presented. One without a challenge is taken for that; a
// challenge of another scheme, or with another error than invalid_token (RFC 6750 section 3.1), is not: to report the
// token then would cost a connection that cannot be refreshed its life.
func blamesToken(h http.Header) bool {
	challenges := h.Values("WWW-Authenticate")
	if len(challenges) == 0 {
		return true
	}
	all := strings.ToLower(strings.Join(challenges, ", "))
	return strings.Contains(all, "bearer") && (!strings.Contains(all, "error=") || strings.Contains(all, "invalid_token"))
}
