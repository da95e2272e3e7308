package tabard_test

import (
	"errors"
	"testing"
	"time"

	"github.com/tabard-id/tabard"
)

func TestUserBehindTheAgent(t *testing.T) {
	f := newFake()
	login := time.UnixMilli(1_790_000_000_500)
	f.on("/tabard/DescribeUser", func(int, object) (int, object) {
		return 200, object{"kind": "jwt", "issuer": "https://idp", "subject": "alice", "userRef": "ref", "authenticatedAt": 1_790_000_000.5}
	})
	f.on("/tabard/GetUserInfo", func(int, object) (int, object) {
		return 200, object{"subject": "alice", "name": "Alice", "email": "a@example.com", "emailVerified": true, "claims": "{}"}
	})
	client := f.client(t)
	ctx := tabard.WithUserToken(t.Context(), "jwt-canary")
	d, err := client.DescribeUser(ctx)
	if err != nil || *d != (tabard.UserDescription{Kind: "jwt", Issuer: "https://idp", Subject: "alice", UserRef: "ref", AuthenticatedAt: login}) {
		t.Fatalf("got %+v, %v", d, err)
	}
	u, err := client.UserInfo(ctx)
	if err != nil || *u != (tabard.UserInfo{Subject: "alice", Name: "Alice", Email: "a@example.com", EmailVerified: true, Claims: "{}"}) {
		t.Fatalf("got %+v, %v", u, err)
	}
	for _, op := range []string{"/tabard/DescribeUser", "/tabard/GetUserInfo"} {
		calls := f.seen(op)
		if len(calls) != 1 || len(calls[0]) != 1 || calls[0]["workloadIdentityToken"] != "wat-1-jwt-canary<nil>" {
			t.Errorf("%s got %v", op, calls)
		}
	}
	if n := len(f.seen(opPlain)); n != 0 {
		t.Errorf("%d calls went to the operation whose client is used", n)
	}
	f.on("/tabard/GetUserInfo", func(int, object) (int, object) {
		return fault(400, "ValidationException", "which was not added with userinfo")
	})
	_, err = client.UserInfo(ctx)
	if e, ok := errors.AsType[*tabard.Error](err); !ok || e.Code != tabard.ErrInvalid || e.Op != "GetUserInfo" {
		t.Errorf("got %v, want an invalid request", err)
	}
	if _, err := client.DescribeUser(t.Context()); !errors.Is(err, tabard.ErrNoIdentity) {
		t.Errorf("without a user: got %v", err)
	}
}
