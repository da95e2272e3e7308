package main

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

const (
	followEvery = time.Second
	maxTail     = 1000 // the model's bound of one page
)

func newAudit(t terminal) *cobra.Command {
	cmd := group("audit", "The audit trail: who did what, for whom", "Each decision of the server is one record, durable before a secret leaves.")
	cmd.Example = examples("tabard audit tail -f", "as it happens",
		"tabard audit query --user-ref 6f0c… --from 2026-11-01", "who used whose token, when",
		"tabard audit export trail.jsonl", "what there is, to be kept elsewhere",
		"tabard audit verify --checkpoint kept.jwt", "that nothing before the checkpoint was changed")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(auditTail(t, &f), auditQuery(t, &f), auditExport(t, &f), auditVerify(t, &f), auditCheckpoint(t, &f), auditCheckpoints(t, &f),
		auditKeys(t, &f), auditPrune(t, &f))
	return cmd
}

func auditTail(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "tail", Short: "Print the newest records", Args: exactly(),
		Long: "Prints the newest records, the last one last. Reading the trail is recorded too; with -f the records of this command's own\n" +
			"later reads are left out. JSON has one record a line, in the form of the API.",
		Example: examples(
			"tabard audit tail", "the last 20 records",
			"tabard audit tail -f --workload calendar-agent", "what one agent does, as it happens",
			"tabard audit tail -n 1000 --output json | jq 'select(.decision == \"deny\")'", "what was refused"),
	}
	var tail tail
	cmd.Flags().IntVarP(&tail.n, "lines", "n", 20, "how many records, 1 to 1000")
	cmd.Flags().BoolVarP(&tail.follow, "follow", "f", false, "go on until interrupted")
	cmd.Flags().StringVar(&tail.workload, "workload", "", "only records of this workload identity, by `name`")
	tail.out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := tail.out.check(); err != nil {
			return err
		}
		if tail.n < 1 || tail.n > maxTail {
			return usage("tabard audit tail -n 100", "-n is 1 to %d, not %d", maxTail, tail.n)
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		tail.table = newTable(cmd.OutOrStdout(), tail.out.env, auditColumns())
		tail.json = json.NewEncoder(cmd.OutOrStdout())
		return tail.run(cmd.Context(), c)
	}
	return cmd
}

// tail prints the end of the trail, and what is added to it.
type tail struct {
	n        int
	follow   bool
	workload string
	out      output
	table    *table[api.AuditRecord]
	json     *json.Encoder
}

func (l *tail) run(ctx context.Context, c *client) error {
	q := api.ListAuditRecordsRequest{MaxResults: l.n, WorkloadName: l.workload, Newest: true}
	a, err := call[api.ListAuditRecordsResponse](ctx, c, api.OpListAuditRecords, q)
	if err != nil {
		return err
	}
	if err := l.print(a.Records, true); err != nil || !l.follow {
		return err
	}
	q.MaxResults, q.Newest, q.NextToken = maxTail, a.NextToken == "", a.NextToken
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // interrupting is how one leaves
		case <-tick.C:
		}
		a, err := call[api.ListAuditRecordsResponse](ctx, c, api.OpListAuditRecords, q)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if a.NextToken != "" {
			q.NextToken, q.Newest = a.NextToken, false
		}
		if err := l.print(l.withoutOwn(a.Records, c.credentials.AccessKeyID), false); err != nil {
			return err
		}
	}
}

// withoutOwn leaves out the reads that this command itself causes once a second.
func (l *tail) withoutOwn(records []api.AuditRecord, key string) []api.AuditRecord {
	var others []api.AuditRecord
	for _, r := range records {
		if r.Action != api.OpListAuditRecords || r.AccessKeyID != key {
			others = append(others, r)
		}
	}
	return others
}

func (l *tail) print(records []api.AuditRecord, first bool) error {
	if l.out.format != "json" {
		return l.table.write(records, first)
	}
	for _, r := range records {
		if err := l.json.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func auditColumns() []column[api.AuditRecord] {
	type row = api.AuditRecord
	or := func(s string) string { return cmp.Or(s, "-") }
	return []column[row]{
		{name: "TIME", text: func(r row) string { return r.Time.UTC().Format("2006-01-02T15:04:05.000Z") }},
		{name: "DECISION", text: func(r row) string { return string(r.Decision) }, tint: func(r row) colour {
			if r.Decision == api.AuditDecisionDeny {
				return red
			}
			return plain
		}},
		{name: "ACTION", text: func(r row) string { return r.Action }},
		{name: "PRINCIPAL", text: func(r row) string { return or(r.Principal) }},
		{name: "ON", text: func(r row) string { return or(cmp.Or(r.WorkloadName, r.Resource)) }},
		{name: "USER", text: func(r row) string { return or(shorten(r.UserRef)) }},
		{name: "PROVIDER", text: func(r row) string { return or(r.Provider) }},
		{name: "OUTCOME", text: func(r row) string { return or(strings.Trim(r.Outcome+" "+r.Detail, " ")) }},
		{name: "RULE", text: func(r row) string { return or(r.Rule) }},
	}
}

// shorten keeps enough of a user's reference to tell users apart in a table; JSON has it whole.
func shorten(ref string) string {
	const enough = 12
	if len(ref) <= enough {
		return ref
	}
	return ref[:enough]
}
