package issuer_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/issuer"
)

// M14: who has to wait is told how long in OAuth's form too.
func TestM14_AnswersSayHowLongToWait(t *testing.T) {
	slow := fault.New(fault.Throttled, "wait")
	slow.After = 1500 * time.Millisecond
	w := httptest.NewRecorder()
	issuer.WriteErrorOf(w, httptest.NewRequest("POST", "/oauth2/token", nil), slow)
	if got := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || got != "2" {
		t.Errorf("got %d, Retry-After %q", w.Code, got)
	}
}
