package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

const revocationPoll = 500 * time.Millisecond

// revoking is the command line of tabard revoke.
type revoking struct {
	q       api.RevokeAccessRequest
	user    userFlags
	receipt string
	wait    time.Duration
	resume  string // id of an earlier one
	out     output
}

func newRevoke(t terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke", Short: "Revoke access: of an agent, a user, at a provider, or of everybody", Args: exactly(),
		Long: `Ends every connection that all the given flags select. Without --provider it also ends the workload access tokens, everywhere
within two seconds, the users' tokens that are kept, and what users delegated. With --upstream the tokens are revoked at
the providers too; what a provider does not answer is tried again, by the server, for about a day.

Connections that ended are never ended half: a server that dies in the middle goes on where it was. What came of it is on
standard error, and the signed receipt on standard output, or in the file of --receipt. It names the connections that could
not be revoked at their providers, and why (1000 of them; of all it has the digest). A receipt of before the last provider has answered says "final": false; tabard revoke
--resume ID brings the later one.

Exit codes:
  0  everything that was selected has ended, also at the providers where --upstream asks for it
  1  it has ended here, but a provider refused, or has no way to revoke: a token that is out lives until it expires
  4  denied; --account needs the role root
  5  it has ended here, and providers are still being asked`,
		Example: examples(
			"tabard revoke --agent calendar-agent --upstream --reason 'key leaked' --receipt receipt.jws", "all that an agent has",
			"tabard revoke --user-issuer https://login.example.com --user-subject 8c1f --upstream", "all of one user",
			"tabard revoke --agent calendar-agent --provider google-calendar", "of one agent at one provider, here only",
			"tabard revoke --account --upstream", "everything in the account",
			"tabard revoke --resume rvk-4kq2", "how an earlier one went on"),
	}
	var f finder
	f.addFlags(cmd, t)
	var r revoking
	r.addFlags(cmd, t, &f)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		id := r.resume
		if id == "" {
			a, err := call[api.RevokeAccessResponse](cmd.Context(), c, api.OpRevokeAccess, r.q)
			if err != nil {
				return err
			}
			if a.Revocation == nil {
				return fmt.Errorf("the server's answer has no revocation: is %s a Tabard server?", c.url)
			}
			id = a.Revocation.RevocationID
		}
		return r.follow(cmd, c, id)
	}
	return cmd
}

func (r *revoking) addFlags(cmd *cobra.Command, t terminal, f *finder) {
	flags := cmd.Flags()
	flags.StringVar(&r.q.WorkloadName, "agent", "", "of this workload identity, by `name`")
	r.user.add(cmd, "user", "user-")
	flags.StringVar(&r.q.ProviderName, "provider", "", "at this credential provider, by `name`")
	flags.BoolVar(&r.q.WholeAccount, "account", false, "everything in the account")
	flags.BoolVar(&r.q.Upstream, "upstream", false, "at the providers too")
	flags.StringVar(&r.q.Reason, "reason", "", "`why`: for the audit trail and the receipt")
	flags.StringVar(&r.receipt, "receipt", "", "`file` for the signed receipt (default standard output)")
	flags.DurationVar(&r.wait, "wait", time.Minute, "how long to wait for the providers")
	flags.StringVar(&r.resume, "resume", "", "follow the revocation with this `id` and begin none")
	complete(cmd, "agent", inFlag(workloadNames(f)))
	complete(cmd, "provider", inFlag(providerNames(f)))
	r.out.addFlag(cmd, t)
}

func (r *revoking) check() error {
	if err := r.out.check(); err != nil {
		return err
	}
	var err error
	if r.q.User, err = r.user.selector(); err != nil {
		return err
	}
	selected := r.q.WorkloadName != "" || r.q.User != nil || r.q.ProviderName != ""
	switch {
	case r.resume != "" && (selected || r.q.WholeAccount):
		return usage("give one of them", "--resume begins no revocation")
	case r.resume == "" && !selected && !r.q.WholeAccount:
		return usage("for example --agent NAME, --user REF or --provider NAME; --account means everything", "tabard revoke needs to know what to revoke")
	case selected && r.q.WholeAccount:
		return usage("leave the others out", "--account means everything")
	}
	return nil
}

// follow waits until the revocation is done, or the patience is over, and shows what came of it.
func (r *revoking) follow(cmd *cobra.Command, c *client, id string) error {
	ctx, errs := cmd.Context(), cmd.ErrOrStderr()
	fmt.Fprintf(errs, "revocation %s\n", oneLine(id))
	deadline, said := time.Now().Add(r.wait), ""
	for {
		a, err := call[api.GetRevocationResponse](ctx, c, api.OpGetRevocation, api.GetRevocationRequest{RevocationID: id})
		if err != nil {
			return err
		}
		if a.Revocation == nil {
			return fmt.Errorf("the server's answer has no revocation: is %s a Tabard server?", c.url)
		}
		if now := progress(*a.Revocation); now != said {
			fmt.Fprintln(errs, now)
			said = now
		}
		if a.Revocation.State == api.RevocationStateDone || time.Now().After(deadline) {
			return r.conclude(ctx, cmd, c, a)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(revocationPoll):
		}
	}
}

func progress(v api.Revocation) string {
	s := fmt.Sprintf("%d connections", v.Connections)
	if v.WorkloadAccessTokensEnded {
		s += ", workload access tokens ended"
	}
	if v.DelegationsEnded > 0 {
		s += fmt.Sprintf(", %d delegations ended", v.DelegationsEnded)
	}
	if n := v.RevokedUpstream + v.PendingUpstream + v.FailedUpstream + v.UnsupportedUpstream; n > 0 {
		s += fmt.Sprintf("; at the providers: %d revoked, %d pending, %d failed, %d without a way to",
			v.RevokedUpstream, v.PendingUpstream, v.FailedUpstream, v.UnsupportedUpstream)
	}
	return s
}

// conclude shows the connections, writes the receipt, and says by the exit code how it ended.
func (r *revoking) conclude(ctx context.Context, cmd *cobra.Command, c *client, last api.GetRevocationResponse) error {
	items, err := allPages(func(token string) ([]api.RevokedConnection, string, error) {
		a, err := call[api.GetRevocationResponse](ctx, c, api.OpGetRevocation, api.GetRevocationRequest{RevocationID: last.Revocation.RevocationID, NextToken: token})
		return a.Items, a.NextToken, err
	})
	if err != nil {
		return err
	}
	if err := r.print(cmd, items, last.Receipt); err != nil {
		return err
	}
	v := *last.Revocation
	again := "tabard revoke --resume " + v.RevocationID + " shows how it went on"
	switch {
	case v.State != api.RevocationStateDone && v.PendingUpstream > 0:
		return &failure{exit: exitUnavailable, msg: fmt.Sprintf("%d connections ended here, and their providers are still being asked", v.PendingUpstream), hints: []string{again}}
	case v.State != api.RevocationStateDone:
		return &failure{exit: exitUnavailable, msg: "the revocation is still under way", hints: []string{again}}
	case v.FailedUpstream+v.UnsupportedUpstream > 0:
		return &failure{exit: exitFailed, msg: fmt.Sprintf("%d connections ended here, but not at their providers", v.FailedUpstream+v.UnsupportedUpstream),
			hints: []string{"end them at the provider, where it shows its users or administrators what they granted"}}
	}
	return nil
}

// print shows the items on standard error, and the receipt on standard output; where that has a file, or there is none,
// the items are the output.
func (r *revoking) print(cmd *cobra.Command, items []api.RevokedConnection, receipt string) error {
	if receipt == "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "this server signs no receipts")
		return show(cmd, r.out, items, revokedColumns())
	}
	if r.receipt != "" {
		if err := os.WriteFile(r.receipt, []byte(receipt+"\n"), 0o600); err != nil {
			return fmt.Errorf("--receipt: %w", err)
		}
		return show(cmd, r.out, items, revokedColumns())
	}
	if err := newTable(cmd.ErrOrStderr(), r.out.env, revokedColumns()).write(items, true); err != nil {
		return err
	}
	_, err := io.WriteString(cmd.OutOrStdout(), oneLine(receipt)+"\n")
	return err
}

func revokedColumns() []column[api.RevokedConnection] {
	type row = api.RevokedConnection
	return []column[row]{
		{name: "CONNECTION", text: func(i row) string { return i.ConnectionID }},
		{name: "AGENT", text: func(i row) string { return cmp.Or(i.WorkloadName, "-") }},
		{name: "USER", text: func(i row) string { return cmp.Or(shorten(i.UserRef), "-") }},
		{name: "PROVIDER", text: func(i row) string { return i.ProviderName }},
		{name: "UPSTREAM", text: func(i row) string { return string(i.Upstream) }, tint: func(i row) colour {
			if i.Upstream == api.UpstreamRevocationFailed {
				return red
			}
			return plain
		}},
		{name: "DETAIL", text: func(i row) string { return cmp.Or(i.Reason, "-") }},
	}
}
