// Command tabard runs the server (tabard serve) and administers one over its API (everything else).
//
// Security argument: a command is one signed request, so it may do what its access key may do and the server audits it;
// nothing here opens the data. The secret of a new access key is printed once or written to a file that only its owner
// can read. No command takes a secret as an argument, where every user of the machine could read it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, end := untilSignal(func() {
		fmt.Fprintln(os.Stderr, "tabard: ended at once, by a second signal")
		os.Exit(exitFailed)
	})
	code := run(ctx, os.Args[1:], terminal{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, environ: os.Environ})
	end()
	os.Exit(code)
}

// untilSignal returns a context that the first SIGINT or SIGTERM ends, so that a command ends in good order. The second
// calls force, for a server that does not come to an end. The returned function releases both.
func untilSignal(force func()) (context.Context, context.CancelFunc) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		for _, act := range []func(){cancel, force} {
			select {
			case <-signals:
				act()
			case <-ended:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel()
		close(ended)
	}
}

// terminal is what a command may touch of its process.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	environ  func() []string
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, t terminal) int {
	root := newRoot(t)
	root.SetArgs(args)
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	f := asFailure(err)
	fmt.Fprintf(t.err, "%s %s\n", paint(t.err, t.env, red, "tabard:"), f.msg)
	for _, hint := range f.hints {
		if hint == ownHelp {
			hint = cmd.CommandPath() + " --help has examples"
		}
		fmt.Fprintf(t.err, "hint: %s\n", hint)
	}
	return f.exit
}

// newRoot returns the tree of commands.
func newRoot(t terminal) *cobra.Command {
	root := group("tabard", "Agent identity and token vault, wire-compatible with Amazon Bedrock AgentCore Identity", `
Tabard gives agents an identity of their own, and the tokens of the users they act for.

Start a server, then point your agent's AWS SDK at it. The commands that administer a server sign with an access key as
the AWS SDKs do, and find the server by --endpoint, then --data-dir, then AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL and
AWS_ENDPOINT_URL_BEDROCK_AGENTCORE, then ./tabard-data.

`+exitCodeTable())
	root.Example = examples(
		"tabard serve", "a server with nothing configured",
		`eval "$(tabard env)"`, "point the AWS SDKs of this shell at it",
		"tabard issuer add https://login.example.com --audience my-app", "trust the tokens of your users",
		"tabard workload create calendar-agent --return-url https://app.example.com/connected", "an agent",
		"tabard principal create calendar --role agent --workload calendar-agent", "who may act as it",
		"tabard key create calendar", "and its access key",
		"tabard provider create google-calendar --vendor GoogleOauth2 --client-id 123.apps.googleusercontent.com", "where the users' tokens come from",
		"tabard allow calendar-agent google-calendar --scopes https://www.googleapis.com/auth/calendar.events", "which of them the agent may have",
		"tabard audit tail -f", "who did what, as it happens")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(badFlag)
	root.SetHelpCommand(helpCommand())
	root.AddCommand(newServe(t), newSidecar(t), newEnv(t), newIssuer(t), newAccount(t), newRootKey(t), newPrincipal(t), newKey(t), newFederation(t), newWorkload(t), newProvider(t), newAPIKey(t),
		newAllow(t), newDeny(t), newPolicy(t), newConnection(t), newDelegation(t), newUser(t), newRevoke(t), newToken(t), newSigningKey(t), newTag(t), newAudit(t), newModels(t), newVersion(), newExitCodes())
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" { // cobra's own
			asGroup(cmd)
		}
	}
	return root
}
