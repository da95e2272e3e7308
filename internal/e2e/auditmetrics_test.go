package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/daemon"
)

// G07: whatever names of agents, users, providers and paths callers send, the metrics have the same series as before.
func TestG07_MetricsFlood(t *testing.T) {
	w := newWorld(t, daemon.SQLite, func(c *daemon.Config) { c.AdminAddr = "127.0.0.1:0" })
	bot := w.principal("bot", "*", "agent")
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			name := fmt.Sprintf("flood-%d", i)
			w.tabard(root(), "CreateDelegation", map[string]any{"workloadName": name, "userId": name, "providerName": name})
			w.tabard(root(), "GetConnection", map[string]any{"connectionId": name})
			w.tabard(root(), "ListAuditRecords", map[string]any{"workloadName": name, "outcome": name, "principalName": name})
			w.tabard(bot, "ListConnections", map[string]any{"workloadName": name})
			page(t, "GET", w.server.URL()+"/"+name)
			page(t, name, w.server.URL()+"/identities/oauth2/authorize?x="+name)
			page(t, "GET", w.server.URL()+"/identities/oauth2/callback/"+name)
		}
	}
	series := func() (n int) {
		for line := range strings.Lines(page(t, "GET", w.server.AdminURL()+"/metrics").body) {
			if strings.Contains(line, "flood") {
				t.Errorf("a metric has what a caller sent: %s", line)
			}
			if strings.HasPrefix(line, "tabard_") {
				n++
			}
		}
		return n
	}
	flood(0, 3)
	before := series()
	flood(3, 60)
	if after := series(); after != before || before == 0 {
		t.Errorf("%d series before the flood, %d after", before, after)
	}
}
