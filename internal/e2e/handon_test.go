package e2e_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/policy"
	"github.com/tabard-id/tabard/internal/store"
)

// stored writes a policy as a server without today's checks did: past them. The server is stopped meanwhile.
func (w *world) stored(name, text string) {
	w.t.Helper()
	w.stop()
	config := store.Config{SQLitePath: filepath.Join(w.dataDir, "tabard.db")}
	if w.db != daemon.SQLite {
		config = store.Config{PostgresURL: func() string { return w.db }}
	}
	db, err := store.Open(w.t.Context(), config)
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now()
	_, err = db.PutPolicy(w.t.Context(), policy.Row{
		Account: daemon.DefaultAccount, Name: name, Text: text, Source: policy.Created, CreatedBy: "root", Created: now, Updated: now}, 0, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

// TestM07_AStolenTokenIsNobodyElses: an agent that may take over one agent's tokens makes nothing of another's, and a
// permit that names nobody cannot be written and, if it is older than that, hands nothing on.
func TestM07_AStolenTokenIsNobodyElses(t *testing.T) {
	engines(t, func(t *testing.T, db string) {
		w, planner, booker := agents(t, db)
		w.workload("mailer")
		mailer := w.newcomer("mailer", "mailer")
		const exchange = `permit (principal == Tabard::Principal::"mailer", action == Tabard::Action::"ExchangeToken", resource)`
		take := func(wat string) reply {
			return w.form(mailer, "/oauth2/token", exchanging(wat, "mailer", "requested_token_type", workloadTokenType))
		}
		refused := func(what string, r reply, says string) {
			t.Helper()
			if r.status != http.StatusBadRequest || r.get("error") != "invalid_target" || !strings.Contains(r.get("error_description"), says) {
				t.Errorf("%s: %d %s", what, r.status, r.body)
			}
		}
		stolen := w.wat(planner, "planner", w.login("alice"))
		given := w.propagated(booker, stolen, "booker") // the booker's own, and it came through the planner

		for _, when := range []string{"", ` when { context.from != "planner" }`, ` when { context.from == "booker" || true }`, ` unless { context.from == "planner" }`} {
			status, out := w.tabard(root(), "PutPolicy", map[string]any{"name": "sub", "text": exchange + when + ";"})
			if message, _ := out["message"].(string); status != http.StatusBadRequest || !strings.Contains(message, `when { context.from == "AGENT" }`) {
				t.Errorf("%q is stored: %d %v", when, status, out)
			}
		}
		w.put("sub", exchange+` when { context.from == "booker" };`)
		refused("the planner's token", take(stolen), "tabard allow mailer --from AGENT")
		r := take(given)
		if r.status != http.StatusOK {
			t.Fatalf("the booker's token: %d %s", r.status, r.body)
		}
		refused("of the one before the booker", take(w.wat(planner, "planner", w.login("bob"))), "names the agent that handed the token on")

		// who-can and why know who hands on.
		whoCan := func(from string) string {
			return encode(t, w.must("FindWhoCan", map[string]any{"operation": "ExchangeToken", "workloadName": "mailer", "audience": arnOf("mailer"), "from": from}))
		}
		if got := whoCan("booker"); !strings.Contains(got, `"mailer"`) {
			t.Errorf("who can take over the booker's: %s", got)
		}
		if got := whoCan("planner"); strings.Contains(got, `"mailer"`) {
			t.Errorf("who can take over the planner's: %s", got)
		}
		if status, out := w.tabard(root(), "FindWhoCan", map[string]any{"operation": "ExchangeToken", "workloadName": "mailer", "audience": arnOf("mailer")}); status != http.StatusBadRequest {
			t.Errorf("without a sender: %d %v", status, out)
		}
		for _, id := range w.exchangesBy("mailer") {
			a := w.must("ExplainDecision", map[string]any{"recordId": id})
			record, then := a["record"].(map[string]any), a["then"].(map[string]any)
			if then["allowed"] != (record["decision"] == "allow") {
				t.Errorf("why says otherwise than the trail: %v", a)
			}
		}

		w.must("DeletePolicy", map[string]any{"name": "sub"})
		w.stored("old", exchange+";")
		stolen = w.wat(planner, "planner", w.login("alice")) // the server has another address, which a token is bound to
		refused("by an old permit", take(stolen), "policy old to name whose tokens it lets mailer take")
		if r := w.form(mailer, "/oauth2/token", exchanging(w.wat(booker, "booker", w.login("alice")), reports)); r.get("error") != "unauthorized_client" {
			t.Errorf("another's token for a service: %d %s", r.status, r.body)
		}
		if !strings.Contains(w.logs.String(), "a stored policy permits less than it says") {
			t.Error("the log does not say so")
		}
		w.put("old", exchange+` when { ["planner", "booker"].contains(context.from) };`)
		if r := take(stolen); r.status != http.StatusOK {
			t.Errorf("written anew: %d %s", r.status, r.body)
		}

		// What is no token is told for that to who may act for the mailer, and to nobody else.
		if r := take("wat1.bm90"); !strings.Contains(r.get("error_description"), "does not open") {
			t.Errorf("no token: %d %s", r.status, r.body)
		}
		if r := w.form(booker, "/oauth2/token", exchanging("wat1.bm90", "mailer", "requested_token_type", workloadTokenType)); r.get("error") != "unauthorized_client" {
			t.Errorf("no token, for another agent: %d %s", r.status, r.body)
		}
		w.must("DisableWorkloadIdentity", map[string]any{"name": "planner", "reason": "stolen"})
		if r := take(stolen); r.status != http.StatusBadRequest || r.get("error") == "invalid_target" {
			t.Errorf("of a disabled agent: %d %s", r.status, r.body)
		}
	})
}

// exchangesBy returns the ids of the records of decisions on exchanges by a principal.
func (w *world) exchangesBy(principal string) []string {
	w.t.Helper()
	var out []string
	records, _ := w.must("ListAuditRecords", map[string]any{"newest": true, "maxResults": 100})["records"].([]any)
	for _, r := range records {
		r, _ := r.(map[string]any)
		if id, _ := r["recordId"].(string); r["principal"] == principal && r["action"] == "ExchangeToken" {
			out = append(out, id)
		}
	}
	if len(out) < 3 {
		w.t.Errorf("%s has %d records of exchanges", principal, len(out))
	}
	return out
}
