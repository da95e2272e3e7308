package issuer

import (
	"net/http"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/secret"
)

// backchannel answers an issuer of users that tells of a logout (OpenID Connect Back-Channel Logout 1.0 §2.5, §2.8).
// Nobody authenticates: the logout token is signed.
func (h *handler) backchannel(w http.ResponseWriter, r *http.Request) (int, access.Caller, error) {
	account, err := h.account(r)
	if err != nil {
		return h.refuse(w, err)
	}
	w.Header().Set("X-Amzn-Requestid", access.RequestID(r.Context()))
	err = func() error {
		body, err := readBody(w, r)
		if err != nil {
			return err
		}
		f, err := parseForm(r, body)
		if err != nil {
			return err
		}
		if f["logout_token"] == "" {
			return refuse("invalid_request", "logout_token is missing")
		}
		return h.Logout(r.Context(), account, r.PathValue("issuer"), secret.New(f["logout_token"]))
	}()
	if err != nil {
		e := errorOf(err)
		if e.status == http.StatusTooManyRequests || e.status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "5")
		}
		writeError(w, r, e)
		return e.status, access.Caller{}, err
	}
	w.WriteHeader(http.StatusOK)
	return http.StatusOK, access.Caller{}, nil
}
