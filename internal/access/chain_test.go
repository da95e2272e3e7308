package access_test

import (
	"context"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// linked is a trail that links chains to checkpoints.
type linked struct {
	memory
	begun []string // account, writer, over
	err   error
}

func (l *linked) BeginChain(_ context.Context, account access.Account, writer, over string) ([32]byte, error) {
	if l.err != nil {
		return [32]byte{}, l.err
	}
	l.begun = append(l.begun, string(account), writer, over)
	return [32]byte{byte(len(l.begun))}, nil
}

// Each account has a chain of its own, so that its trail can be read, verified and pruned without another's.
func TestEachAccountHasItsChain(t *testing.T) {
	log, now := &linked{}, time.Now()
	g := access.NewGuard(access.Config{Log: log, Now: func() time.Time { return now }, Decider: access.Table{}})
	defer g.Close()
	write := func(account access.Account) error {
		return g.Event(t.Context(), access.Caller{Account: account}, access.RefreshTokens, access.Facts{}).Wait(t.Context())
	}
	for _, account := range []access.Account{"1", "2", "1", "2"} {
		must(t, write(account))
	}
	records := log.records()
	if records[0].Writer != records[2].Writer || records[1].Writer != records[3].Writer || records[0].Writer == records[1].Writer {
		t.Error("two accounts share a writer, or one has two")
	}
	if records[0].Prev != [32]byte{3} || records[1].Prev != [32]byte{6} || records[2].Prev != records[0].Hash || records[3].Sequence != 2 {
		t.Error("the chains do not begin with their links and go on from record to record")
	}

	now = now.Add(access.ChainIdle) // whoever makes checkpoints may take the writer for ended
	must(t, write("1"))
	records = log.records()
	if last := records[4]; last.Writer == records[0].Writer || last.Sequence != 1 || log.begun[8] != records[0].Writer {
		t.Errorf("after an idle time the chain goes on, or does not say that it ended: %v", log.begun)
	}
}

// A chain that cannot begin writes nothing, and what waits is refused.
func TestAChainThatCannotBegin(t *testing.T) {
	log := &linked{err: errDisk}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	if err := g.Event(t.Context(), agent(), access.RefreshTokens, access.Facts{}).Wait(t.Context()); err == nil || len(log.records()) > 0 {
		t.Errorf("got %v and %d records", err, len(log.records()))
	}
}

// What is hashed is what an export in JSON can carry.
func TestRecordsAreText(t *testing.T) {
	log := &memory{}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	scopes := []string{"a\xffb"}
	must(t, g.Event(t.Context(), agent(), "x", access.Facts{Detail: "\xc3\x28", Scopes: scopes}).Wait(t.Context()))
	r := log.records()[0]
	if r.Facts.Detail != "\uFFFD(" || r.Facts.Scopes[0] != "a\uFFFDb" || scopes[0] != "a\xffb" {
		t.Errorf("got %q %q; the caller's %q", r.Facts.Detail, r.Facts.Scopes, scopes)
	}
}
