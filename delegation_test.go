package tabard_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"testing"
	"time"

	"google.golang.org/api/calendar/v3"

	"github.com/tabard-id/tabard"
)

const opDelegated = "/tabard/GetWorkloadAccessTokenForDelegation"

// delegating makes the fake serve the delegation "dlg-night" until it has been minted for so many times.
func delegating(f *fake, mints int) {
	f.on(opDelegated, func(n int, in object) (int, object) {
		if in["delegationId"] != "dlg-night" || in["workloadName"] != "calendar-agent" || n > mints {
			return fault(403, "AccessDeniedException", "the delegation dlg-night has ended")
		}
		return 200, object{"workloadAccessToken": fmt.Sprint("wat1.night", n), "expiresAt": time.Now().Add(10 * time.Minute).Unix()}
	})
}

func ExampleWithDelegation() {
	f := newFake()
	delegating(f, 1)
	conf := awsConfig()
	conf.HTTPClient = f
	client, err := tabard.New(context.Background(), tabard.Config{AWS: &conf, Endpoint: "http://127.0.0.1:1", Workload: "calendar-agent"})
	if err != nil {
		log.Fatal(err)
	}
	// The id is what the user's application got when the user delegated; the job has no token of the user's.
	night := tabard.WithDelegation(context.Background(), "dlg-night")
	token, err := client.Token(night, tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}})
	if errors.Is(err, tabard.ErrDenied) {
		fmt.Println("the user has ended it, or did not delegate this:", err)
		return
	}
	fmt.Println(token, err)
	// Output: tabard.Token([secret]) <nil>
}

func TestDelegationIsMintedOnceAndEnds(t *testing.T) {
	f := newFake()
	delegating(f, 1)
	c := f.client(t)
	need := tabard.OAuth2{Provider: "google", Scopes: []string{"calendar"}}
	night := tabard.WithDelegation(t.Context(), "dlg-night")
	for range 3 {
		if _, err := c.Token(night, need); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.seen(opDelegated)); n != 1 { // the fake would refuse a second
		t.Errorf("%d mints for three tokens, want 1", n)
	}
	if n := len(f.seen(opJWT)) + len(f.seen(opUserID)) + len(f.seen(opPlain)); n != 0 {
		t.Errorf("%d mints of another kind", n)
	}
	f.on(opToken, func(int, object) (int, object) {
		return fault(401, "UnauthorizedException", "the delegation dlg-night has ended")
	})
	if _, err := c.Token(night, need); !errors.Is(err, tabard.ErrDenied) || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("after it has ended: %v, want ErrDenied of the mint", err)
	}
	if _, err := c.Token(tabard.WithDelegation(t.Context(), "dlg-other"), need); !errors.Is(err, tabard.ErrDenied) {
		t.Errorf("another delegation: %v, want ErrDenied", err)
	}
	if _, err := c.Token(tabard.WithDelegation(t.Context(), ""), need); !errors.Is(err, tabard.ErrNoIdentity) {
		t.Errorf("no delegation: %v, want ErrNoIdentity", err)
	}
}
