package consent

import (
	"net/http"

	"github.com/tabard-id/tabard/internal/fault"
)

// keys publishes the public key that a provider verifies our assertions with. A provider may keep it for five minutes:
// no longer, because a provider whose endpoints change gets a new one.
func (h *handler) keys(w http.ResponseWriter, r *http.Request) result {
	set, err := h.Broker.ClientKeys(r.Context(), r.PathValue("id"))
	if err != nil {
		res := result{status: http.StatusNotFound, code: string(fault.CodeOf(err)), err: err}
		if fault.CodeOf(err) != fault.NotFound {
			res.status = http.StatusServiceUnavailable
		}
		w.WriteHeader(res.status)
		return res
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(set) // the client went away: nothing left to tell it
	return result{status: http.StatusOK}
}
