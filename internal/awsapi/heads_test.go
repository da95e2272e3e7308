package awsapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/awsapi"
)

// M11: what a request holds before anybody is known is bounded, whether that is its body or its head: a page that waits
// for a slow provider holds the heads of all who ask for it.
func TestM11_HeadsCountAsBodiesDo(t *testing.T) {
	const memory = 4 << 20
	a := awsapi.NewAdmission(nil, time.Now)
	a.Bound(awsapi.AdmissionBounds{BodyMemory: memory})
	var mu sync.Mutex
	held, slow := 0, make(chan struct{})
	h := a.Meter(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			mu.Lock()
			held++
			mu.Unlock()
			<-slow
		}
	}))
	ask := func(path, from string, head int) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr = from
		r.Header.Set("X-Long", strings.Repeat("x", head))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	const asked = 300
	var wait sync.WaitGroup
	refused := 0
	for range asked {
		wait.Go(func() {
			w := ask("/slow", "192.0.2.1:1", 60<<10)
			mu.Lock()
			defer mu.Unlock()
			if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") != "" {
				refused++
			} else if w.Code != http.StatusOK {
				t.Errorf("got %d", w.Code)
			}
		})
	}
	for all := false; !all; time.Sleep(time.Millisecond) {
		mu.Lock()
		all = held+refused == asked
		mu.Unlock()
	}
	for range 8 { // nobody takes what is left, and a short head needs little
		if w := ask("/fast", "192.0.2.2:1", 100); w.Code != http.StatusOK {
			t.Errorf("from another address: %d", w.Code)
		}
	}
	if w := ask("/healthz", "192.0.2.1:1", 100); w.Code != http.StatusOK {
		t.Errorf("a probe: %d", w.Code)
	}
	close(slow)
	wait.Wait()
	if most := memory / 4 / (60 << 10); held > most { // a head without its fields would count as 16 KiB
		t.Errorf("%d long heads of one address were held, %d bytes of %d", held, held*60<<10, memory)
	}
	if w := ask("/fast", "192.0.2.1:1", 60<<10); w.Code != http.StatusOK {
		t.Errorf("after the others were answered: %d", w.Code)
	}
}
