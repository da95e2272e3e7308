package keyring_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/keyring"
)

// fetches counts what issuers were asked.
type fetches map[string]int

func (f fetches) JWKS(_ context.Context, _ access.Account, issuer, _ string) ([]byte, error) {
	f[issuer]++
	return []byte(issuer), nil
}

// However many issuers an account trusts, another account's keys stay.
func TestM12_KeysOfAnotherAccountStay(t *testing.T) {
	asked := fetches{}
	now := time.Now()
	ring := keyring.New(asked, func(_ keyring.Issuer, doc []byte) (string, error) { return string(doc), nil }, func() time.Time { return now })
	verify := func(account access.Account, url string) {
		t.Helper()
		now = now.Add(time.Millisecond)
		err := ring.Verify(t.Context(), keyring.Issuer{Account: account, URL: url}, func(keys string) error {
			if keys != url {
				t.Errorf("account %s: got the keys of %s, want those of %s", account, keys, url)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	verify("222222222222", "https://honest.example")
	for i := range 300 {
		verify("111111111111", fmt.Sprintf("https://%d.example", i))
	}
	verify("222222222222", "https://honest.example")
	if n := asked["https://honest.example"]; n != 1 {
		t.Errorf("the other account's issuer was asked %d times, want once", n)
	}
	verify("111111111111", "https://299.example")
	verify("111111111111", "https://0.example")
	if asked["https://299.example"] != 1 || asked["https://0.example"] != 2 {
		t.Errorf("of its own issuers the account keeps those used last: asked %d and %d times, want 1 and 2",
			asked["https://299.example"], asked["https://0.example"])
	}
}
