package access_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// A record has a few kilobytes, whatever a provider granted or said; it says what it leaves out, and the decision is
// made on all.
func TestM13_RecordsAreBounded(t *testing.T) {
	log := &memory{}
	g := access.NewGuard(access.Config{Log: log, Now: time.Now, Decider: access.Table{}})
	defer g.Close()
	var scopes []string
	for i := range 200 {
		scopes = append(scopes, fmt.Sprintf("%03d%s", i, strings.Repeat("s", 509)))
	}
	huge := strings.Repeat("ü", 50_000)
	facts := access.Facts{Workload: "w", Scopes: scopes, Detail: huge, Resource: huge, Provider: huge, Flow: huge}
	must(t, g.Permit(t.Context(), agent(), access.GetResourceOauth2Token, facts))
	r := log.last()
	size := len(r.Facts.Detail) + len(r.Facts.Resource) + len(r.Facts.Provider) + len(r.Facts.Flow)
	for _, s := range r.Facts.Scopes {
		size += len(s)
	}
	if size > 13_000 || len(r.Facts.Scopes) != 8 || len(facts.Scopes) != 200 {
		t.Errorf("the record has %d bytes and %d scopes", size, len(r.Facts.Scopes))
	}
	sum := sha256.Sum256([]byte(strings.Join(scopes, "\n")))
	if want := "192 more scopes, sha256 of all " + hex.EncodeToString(sum[:]); !strings.HasPrefix(r.Facts.Detail, want) {
		t.Errorf("the record's detail begins with %.100q, want %q", r.Facts.Detail, want)
	}
	must(t, g.Permit(t.Context(), agent(), access.GetResourceOauth2Token, access.Facts{Workload: "w", Scopes: scopes[:8], Detail: "d"}))
	if r := log.last(); len(r.Facts.Scopes) != 8 || r.Facts.Detail != "d" {
		t.Errorf("an ordinary record was cut: %d scopes, %q", len(r.Facts.Scopes), r.Facts.Detail)
	}
}
