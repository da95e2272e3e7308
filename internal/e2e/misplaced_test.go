package e2e_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

// places returns values of a shape, each with text at one of the places where the model has a string that is no secret.
func places(shapes map[string]json.RawMessage, name, text string, depth int) (all []any) {
	var s struct {
		Type       string
		Sensitive  bool
		Enum       []string
		Members    map[string]struct{ Shape string }
		Member     struct{ Shape string }
		Key, Value struct{ Shape string }
	}
	if err := json.Unmarshal(shapes[name], &s); err != nil || depth == 0 {
		return nil
	}
	switch s.Type {
	case "string":
		if !s.Sensitive {
			return []any{text}
		}
	case "list":
		for _, v := range places(shapes, s.Member.Shape, text, depth-1) {
			all = append(all, []any{v})
		}
	case "map":
		all = append(all, map[string]any{text: "v"})
		for _, v := range places(shapes, s.Value.Shape, text, depth-1) {
			all = append(all, map[string]any{"k": v})
		}
	case "structure":
		for _, m := range slices.Sorted(maps.Keys(s.Members)) {
			if m == "checkpoint" { // a JWT that is public
				continue
			}
			for _, v := range places(shapes, s.Members[m].Shape, text, depth-1) {
				all = append(all, map[string]any{m: v})
			}
		}
	}
	return all
}

// M18: a credential in the place of a name, or of any other text, is refused with the member's name before it reaches
// the log or the trail: in every member of every operation, in forms, and in paths.
func TestM18_CredentialsInThePlaceOfNames(t *testing.T) {
	w := newBare(t, daemon.SQLite)
	w.workload("calendar")
	wat := w.call(root(), "GetWorkloadAccessToken", map[string]any{"workloadName": "calendar"}).get("workloadAccessToken")
	kinds := []string{wat, "tabard_" + strings.Repeat("ABCDEFG234", 4), "ses1." + strings.Repeat("Ab0_-", 20), "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLWJ5dGVz"}
	if len(wat) > 255 {
		t.Errorf("the shortest workload access token has %d characters, more than a name may have: the test shows less than it says", len(wat))
	}
	n := 0
	for _, file := range []string{"identity-control", "identity-data", "tabard"} {
		doc, err := os.ReadFile("../../api/models/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			Operations map[string]struct{ Input struct{ Shape string } }
			Shapes     map[string]json.RawMessage
		}
		if err := json.Unmarshal(doc, &m); err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(m.Operations)) {
			op, ok := api.Find(name)
			if !ok || op.Method != http.MethodPost || strings.Contains(op.Path, "{") {
				continue
			}
			for i := range places(m.Shapes, m.Operations[name].Input.Shape, "", 6) {
				text := kinds[n%len(kinds)]
				n++
				body, err := json.Marshal(places(m.Shapes, m.Operations[name].Input.Shape, text, 6)[i])
				if err != nil {
					t.Fatal(err)
				}
				r := do(t, w.request(root(), op.Method, op.Path, string(body)))
				if r.status != http.StatusBadRequest || strings.Contains(r.body, text) || !strings.Contains(r.body, "credential") && !strings.Contains(r.body, "not offered") {
					t.Errorf("%s %s: %d %s", name, strings.ReplaceAll(string(body), text, "CREDENTIAL"), r.status, strings.ReplaceAll(r.body, text, "CREDENTIAL"))
				}
			}
		}
	}
	for i, text := range kinds {
		if r := do(t, w.request(root(), http.MethodGet, "/tags/"+url.PathEscape(text), "")); r.status != http.StatusBadRequest {
			t.Errorf("kind %d as an ARN in the path: %d", i, r.status)
		}
		if r := w.form(root(), "/oauth2/token", exchanging(wat, text)); r.status != http.StatusBadRequest || r.get("error") != "invalid_request" {
			t.Errorf("kind %d as an audience: %d %s", i, r.status, r.get("error"))
		}
		if r := w.form(root(), "/oauth2/token", exchanging(wat, "reports", "scope", text)); r.status != http.StatusBadRequest || r.get("error") != "invalid_request" {
			t.Errorf("kind %d as a scope: %d %s", i, r.status, r.get("error"))
		}
	}
	if n < 300 {
		t.Errorf("only %d places were tried", n)
	}
	log, trail := w.logs.String(), ""
	for next := ""; ; {
		in := map[string]any{"maxResults": 100}
		if next != "" {
			in["nextToken"] = next
		}
		r := w.call(root(), "ListAuditRecords", in)
		trail += r.body
		if next = r.get("nextToken"); next == "" {
			break
		}
	}
	for i, text := range kinds {
		if strings.Contains(log, text) || strings.Contains(trail, text) {
			t.Errorf("kind %d reached the log or the trail", i)
		}
	}
}
