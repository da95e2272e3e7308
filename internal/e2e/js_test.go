package e2e_test

import (
	"testing"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestJSEveryOperation calls all operations through the AWS SDK for JavaScript v3, with its paginators; the script
// asserts shapes, times and the SDK's typed errors itself.
func TestJSEveryOperation(t *testing.T) {
	peer.Node(t)
	engines(t, func(t *testing.T, db string) { everyOperation(t, db, suiteJS, "operations.mjs") })
}

// TestJSWithAccessToken is TestPythonRequiresAccessToken with withAccessToken of npm bedrock-agentcore and its own
// poller.
func TestJSWithAccessToken(t *testing.T) {
	peer.Node(t)
	engines(t, func(t *testing.T, db string) { officialFlow(t, db, "threelo.mjs", "complete.mjs") })
}
