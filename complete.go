package tabard

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore/types"
)

// sessionPrefix begins every sessionUri (RFC 9126 §2.2).
const sessionPrefix = "urn:ietf:params:oauth:request_uri:"

// Complete tells the service who finished a consent in the browser; only then is the provider's code redeemed. It is
// called by the web app behind the return URL, with credentials of the web app and not of the agent, which must not
// confirm its own consents. The user must come from the session of this very browser: from the query or from a cache
// on the side, another person's consent could be completed. Of another user than the one who began, the service
// answers ErrDenied and ends the session. Repeating it after success is harmless.
func (c *Client) Complete(ctx context.Context, sessionURI string, user User) error {
	if id, ok := strings.CutPrefix(sessionURI, sessionPrefix); !ok || !plain(id, 1, 1024-len(sessionPrefix), "-._~") {
		return invalid("the session is not one of a consent; it is the query parameter session_id of the return URL")
	}
	var id types.UserIdentifier
	switch user.who.kind {
	case byUserToken:
		id = &types.UserIdentifierMemberUserToken{Value: user.who.value.Expose()}
	case byUserID:
		id = &types.UserIdentifierMemberUserId{Value: user.who.value.Expose()}
	}
	if id == nil || user.IsZero() {
		return &Error{Code: ErrNoIdentity, Message: "a consent is completed for a user: UserToken or UserID"}
	}
	_, err := c.api.CompleteResourceTokenAuth(ctx, &bedrockagentcore.CompleteResourceTokenAuthInput{
		SessionUri: aws.String(sessionURI), UserIdentifier: id}, quiet)
	return failure(ctx, "CompleteResourceTokenAuth", err)
}

// CompleteHandler serves the return URL of a web app. For each GET it calls user with the request and the query's
// state; user must return who is logged in in this browser, after comparing state with what the app remembers of that
// browser's session (see WithCustomState), or an error. Then it completes the session of the query's session_id and
// calls done with the outcome, which may redirect to a clean URL. A nil done answers with a short plain page.
func (c *Client) CompleteHandler(user func(r *http.Request, state string) (User, error),
	done func(w http.ResponseWriter, r *http.Request, err error)) http.Handler {
	if done == nil {
		done = plainPage
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The query names a session: no cache may keep it and no link may pass it on.
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer")
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		query := r.URL.Query()
		who, err := user(r, query.Get("state"))
		if err == nil {
			err = c.Complete(r.Context(), query.Get("session_id"), who)
		}
		done(w, r, err)
	})
}

// plainPage says what a person can do about it, and nothing of why.
func plainPage(w http.ResponseWriter, _ *http.Request, err error) {
	status, text := http.StatusOK, "Access is granted. You can close this window.\n"
	switch {
	case err == nil:
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrThrottled), errors.Is(err, ErrInternal):
		status, text = http.StatusServiceUnavailable, "Access could not be granted right now. Reload this page to try again.\n"
	default:
		status, text = http.StatusForbidden, "Access was not granted: the link is invalid, has expired, or belongs to another user. Ask the agent again.\n"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
