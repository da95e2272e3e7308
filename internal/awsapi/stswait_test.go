package awsapi_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/fault"
)

// M14: who has to wait is told how long in STS's form too.
func TestM14_STSAnswersSayHowLongToWait(t *testing.T) {
	slow := fault.New(fault.Throttled, "wait")
	slow.After = 1500 * time.Millisecond
	w := httptest.NewRecorder()
	awsapi.WriteSTSError(w, httptest.NewRequest("POST", "/", nil), "", slow)
	if got := w.Header().Get("Retry-After"); w.Code != http.StatusTooManyRequests || got != "2" {
		t.Errorf("got %d, Retry-After %q", w.Code, got)
	}
}
