package store_test

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/store"
)

// mayName are the columns of text whose names sound as if they were about a person, and what they hold. Columns named
// user_ref are references, and numbers name nobody.
func mayName() map[string]string {
	return map[string]string{
		"issuers.claims":           "rules that tokens must meet, written by administrators",
		"issuers.subject_claim":    "the name of a claim",
		"issuers.policy_claims":    "names of claims, written by administrators",
		"connections.claims":       "sealed",
		"attempts.subject":         "the id of a connection or flow",
		"flows.user_kind":          "jwt or uid",
		"federation_rules.subject": "a pattern for workloads, written by administrators",
		"federation_rules.claims":  "patterns for workloads, written by administrators",
	}
}

// G06: who a user is lies sealed in one row, and everything else has the reference. A new column that is about a person
// must be sealed or a reference, and be listed here with that.
func TestG06_NoColumnHoldsClearUsers(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		query := `SELECT group_concat(m.name || '.' || c.name || '.' || c.type, ' ') FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'`
		if db.Engine() == store.PostgreSQL {
			query = `SELECT string_agg(table_name || '.' || column_name || '.' || replace(data_type, ' ', '-'), ' ') FROM information_schema.columns WHERE table_schema = current_schema()`
		}
		var text string
		must(t, db.TestOnlyWrite(t.Context(), func(ctx context.Context, s store.Statements) (err error) {
			text, err = s.Text(ctx, query)
			return err
		}))
		personal := regexp.MustCompile(`user|subject|sub$|email|person|owner|claim|label|login`)
		known, seen := mayName(), 0
		for _, column := range strings.Fields(text) {
			parts := strings.Split(column, ".")
			number := strings.EqualFold(parts[2], "integer") || strings.EqualFold(parts[2], "bigint")
			if seen++; !personal.MatchString(parts[1]) || parts[1] == "user_ref" || number {
				continue
			}
			if _, ok := known[parts[0]+"."+parts[1]]; !ok {
				t.Errorf("%s is about a person and not listed: is it sealed, or a reference?", column)
			}
		}
		if seen < 100 {
			t.Fatalf("only %d columns found", seen)
		}
	})
}

// What policies are told of a user is in no record.
func TestG06_NoRecordHoldsClearUsers(t *testing.T) {
	each(t, func(t *testing.T, db *store.DB) {
		g := access.NewGuard(access.Config{Log: db, Now: time.Now, Decider: access.Table{}})
		defer g.Close()
		f := access.Facts{Workload: "calendar", UserRef: "ref", Outcome: "released"}
		f.User = access.UserFacts{Issuer: "https://canary.example", Subject: "canary-subject", Claims: `{"email":"canary@example.com"}`}
		must(t, g.Permit(t.Context(), auditor(), access.GetResourceOauth2Token, f))
		records, _, err := db.Records(t.Context(), account, access.Query{Limit: 10})
		must(t, err)
		doc, err := json.Marshal(records)
		must(t, err)
		if len(records) != 1 || strings.Contains(string(doc), "canary") {
			t.Errorf("%s", doc)
		}
	})
}
