package awsapi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/fault"
)

// from is a request that claims an access key and comes from an address.
func from(remote, keyID string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/tabard/ListPrincipals", nil)
	r.RemoteAddr = remote
	if keyID != "" {
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+keyID+"/20260101/us-east-1/bedrock-agentcore/aws4_request, SignedHeaders=host, Signature=00")
	}
	return r
}

// A34: what is counted are failures, by the key they claim and by the address they come from, and time forgives them.
func TestA34_FailuresAreCounted(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	a := awsapi.NewAdmission(nil, func() time.Time { return now })
	wrong := fault.New(fault.SignatureInvalid, "the signature does not match")
	try := func(r *http.Request, err error) (fault.Code, string) {
		w := httptest.NewRecorder()
		_, err = a.Admit(w, r, access.Caller{Account: "000000000000"}, err)
		return fault.CodeOf(err), w.Header().Get("Retry-After")
	}
	throttled := func(remote, keyID string, n int) (count int) {
		for range n {
			code, after := try(from(remote, keyID), wrong)
			if code == fault.Throttled {
				if count++; after == "" {
					t.Fatal("throttled without Retry-After")
				}
			}
		}
		return count
	}
	// From another address each time, the key is what counts; the owner of the key comes in throughout.
	for i := range 40 {
		code, _ := try(from(fmt.Sprintf("203.0.113.%d:1", i), "TABARDVICTIM00000000"), wrong)
		if want := map[bool]fault.Code{true: fault.SignatureInvalid, false: fault.Throttled}[i < 20]; code != want {
			t.Fatalf("failure %d of a key: got %s, want %s", i+1, code, want)
		}
		if code, _ := try(from("198.51.100.1:1", "TABARDVICTIM00000000"), nil); code != "" {
			t.Fatalf("the owner of the key is refused with %s", code)
		}
	}
	now = now.Add(3 * time.Second)
	if got := throttled("203.0.113.200:1", "TABARDVICTIM00000000", 5); got != 2 {
		t.Errorf("3 seconds later %d of 5 failures are throttled, want 2", got)
	}
	// With another key each time, the address counts; of IPv6 it is the network.
	now = now.Add(time.Hour)
	count := 0
	for i := range 150 {
		if code, _ := try(from(fmt.Sprintf("[2001:db8:1:2::%x]:1", i+1), fmt.Sprintf("TABARDGUESS%09d", i)), wrong); code == fault.Throttled {
			count++
		}
	}
	if count < 45 || count > 55 {
		t.Errorf("%d of 150 failures of a network are throttled, want about 50", count)
	}
	// What says nothing about a guess is not counted.
	now = now.Add(time.Hour)
	for range 200 {
		if code, _ := try(from("203.0.113.9:1", "TABARDOTHER000000000"), fault.New(fault.Unavailable, "down")); code != fault.Unavailable {
			t.Fatalf("an answer of the store became %s", code)
		}
	}
	if got := throttled("203.0.113.9:1", "TABARDOTHER000000000", 10); got != 0 {
		t.Errorf("%d of 10 failures are throttled after none", got)
	}
	// However long the key, the memory is the same.
	if got := throttled("203.0.113.77:1", strings.Repeat("x", 1<<20), 1); got != 0 {
		t.Errorf("a long key: %d", got)
	}
}
