package e2e_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestPythonTabardClient calls our own operations from boto3.client("tabard") and the aws command, which know of them
// only what is published under AWS_DATA_PATH.
func TestPythonTabardClient(t *testing.T) {
	peer.Python(t)
	engines(t, func(t *testing.T, db string) {
		w, corporation := newWorld(t, db), corporate(t)
		w.workload("calendar-agent")
		w.idp.Register(t, peer.Client{ID: clientID, Secret: clientSecret})
		seen := newMembers()
		run := w.scriptAt(w.tap(seen), "tabard_client.py", root(), map[string]string{
			"AWS_DATA_PATH": filepath.Join(peer.Root(t), "api", "models", "aws-data"), "PUBLIC_URL": w.server.PublicURL(),
			"ISSUER": w.idp.Issuer, "CLIENT_ID": clientID, "CLIENT_SECRET": clientSecret, "M2M_SCOPE": "calendar.read",
			"USER_TOKEN": w.login("alice"), "CLIENT_OF_USERS": appClient, "CORPORATE_ISSUER": corporation.Issuer(),
			"CORPORATE_TOKEN": corporation.MintAccessToken("alice", appClient).Expose(),
		}).Start(t)
		for range 4 {
			w.consent(run.Next(t, "consent"))
		}
		events := run.Wait(t)
		wantChecked(t, suitePy, ownOperation, events)
		seen.wantMembers(t, ownMembers, suitePy)
		var want []any
		for _, op := range api.Operations() {
			if op.Plane == api.PlaneTabard {
				want = append(want, op.Name)
			}
		}
		if d := cmp.Diff(want, events[len(events)-1]["operations"]); d != "" {
			t.Errorf("the operations that boto3 offers (-model +boto3):\n%s", d)
		}
	})
}
