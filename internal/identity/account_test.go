package identity_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

func TestRotateRootKey(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	must(t, w.EnsureRoot(ctx, account, rootKeyID, secret.New(rootSecret)))
	for _, role := range []access.Role{access.Admin, access.Agent, access.Auditor} {
		_, _, _, err := w.RotateRootKey(ctx, caller(role))
		wantCode(t, string(role), err, fault.Denied)
	}
	k, sk, disabled, err := w.RotateRootKey(ctx, w.root)
	must(t, err)
	if len(disabled) != 1 || disabled[0] != rootKeyID || k.Secret != nil || k.Owner != identity.RootName {
		t.Errorf("got %+v, disabled %v", k, disabled)
	}
	_, err = w.Credential(ctx, rootKeyID)
	wantCode(t, "the old key", err, fault.SignatureUnknown)
	c := ok(w.Credential(ctx, k.ID))(t)
	if got := ok(c.Secret(ctx))(t); !got.Equal(sk) || !c.Caller.Has(access.Root) {
		t.Error("the new key is not that of root")
	}
	must(t, w.EnsureRoot(ctx, account, rootKeyID, secret.New(rootSecret)))
	_, err = w.Credential(ctx, rootKeyID)
	wantCode(t, "the old key after a restart that names it", err, fault.SignatureUnknown)
}

func TestRecoverRoot(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	must(t, w.EnsureRoot(ctx, account, rootKeyID, secret.New(rootSecret)))
	ok(w.SetPrincipalDisabled(ctx, w.root, identity.RootName, true))(t)
	k, sk, err := w.RecoverRoot(ctx, account)
	must(t, err)
	c := ok(w.Credential(ctx, k.ID))(t)
	if got := ok(c.Secret(ctx))(t); !got.Equal(sk) {
		t.Error("the recovered key has another secret")
	}
	_, err = w.Credential(ctx, rootKeyID)
	wantCode(t, "the old key", err, fault.SignatureUnknown)
	records := w.records()
	if last := records[len(records)-1]; last.Action != access.RotateRootKey || last.Facts.Outcome != "recovered" || last.AccessKey != k.ID {
		t.Errorf("the last record is %+v", last)
	}
}

// keysUsed counts the writes of uses, and fails them while told to.
type keysUsed struct {
	identity.Store
	fail   bool
	writes [][]identity.Use
}

func (s *keysUsed) KeysUsed(ctx context.Context, batch []identity.Use) error {
	if s.fail {
		return errors.New("down")
	}
	s.writes = append(s.writes, batch)
	return s.Store.KeysUsed(ctx, batch)
}

// However often a key signs, it is written at most once a minute, and what could not be written is written later.
func TestUsesAreWrittenOnceAMinute(t *testing.T) {
	var s *keysUsed
	w := newWorld(t, func(c *identity.Config) {
		s = &keysUsed{Store: c.Store}
		c.Store = s
	})
	ctx := t.Context()
	must(t, w.EnsureRoot(ctx, account, rootKeyID, secret.New(rootSecret)))
	use := func() {
		for range 100 {
			ok(w.Credential(ctx, rootKeyID))(t).Used()
		}
	}
	used := func() time.Time {
		keys, _, err := w.AccessKeys(ctx, w.root, "", "", 10)
		must(t, err)
		return keys[0].LastUsed
	}
	if !used().IsZero() {
		t.Errorf("a key that never signed was last used at %s", used())
	}
	use()
	must(t, w.WriteUses(ctx))
	first := used()
	use()
	must(t, w.WriteUses(ctx)) // within the same minute
	if len(s.writes) != 1 || len(s.writes[0]) != 1 || first.IsZero() {
		t.Errorf("%d writes, last used %s", len(s.writes), first)
	}
	w.clock.at = w.clock.at.Add(2 * time.Minute)
	use()
	s.fail = true
	if w.WriteUses(ctx) == nil {
		t.Error("a write that failed succeeded")
	}
	s.fail = false
	must(t, w.WriteUses(ctx))
	if got := used(); !got.After(first.Add(time.Minute)) || len(s.writes) != 2 {
		t.Errorf("last used %s after %d writes", got, len(s.writes))
	}
}
