package main

import (
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

// auditFilter is the flags that select records.
type auditFilter struct {
	q        api.ListAuditRecordsRequest
	from, to string
}

func (a *auditFilter) addFlags(cmd *cobra.Command, f *finder) {
	flags := cmd.Flags()
	flags.StringVar(&a.q.WorkloadName, "workload", "", "only of this workload identity, by `name`")
	flags.StringVar(&a.q.PrincipalName, "principal", "", "only of this principal, by `name`")
	flags.StringVar(&a.q.UserRef, "user-ref", "", "only for this user, by `reference`, whole, as --output json of tabard connection list has it")
	flags.StringVar(&a.q.ProviderName, "provider", "", "only with this credential provider, by `name`")
	flags.StringVar(&a.q.Operation, "operation", "", "only of this operation, such as GetResourceOauth2Token")
	flags.StringVar(&a.q.Outcome, "outcome", "", "only with this outcome, such as released")
	flags.BoolVar(&a.q.DeniedOnly, "denied", false, "only refusals")
	flags.StringVar(&a.from, "from", "", "only at this `time` and later: 2026-11-23, 2026-11-23T10:00:00Z, or 24h for the last 24 hours")
	flags.StringVar(&a.to, "to", "", "only before this `time` (default now)")
	complete(cmd, "workload", inFlag(workloadNames(f)))
	complete(cmd, "provider", inFlag(providerNames(f)))
}

func (a *auditFilter) check(now time.Time) (err error) {
	if a.q.From, err = moment("--from", a.from, now); err != nil {
		return err
	}
	a.q.To, err = moment("--to", a.to, now)
	return err
}

// moment reads a time of the command line. Without a zone it is UTC.
func moment(flag, text string, now time.Time) (api.Timestamp, error) {
	if text == "" {
		return api.Timestamp{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return api.At(t), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return api.At(now.Add(-d)), nil
	}
	return api.Timestamp{}, usage("for example "+flag+" 2026-11-23T10:00:00Z, or "+flag+" 24h", "%s %q is no time", flag, oneLine(text))
}

func auditQuery(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "query", Short: "Search the trail", Args: exactly(),
		Long: "Prints the records that match every flag, the oldest first, up to now. Reading is recorded too. JSON has one record a line.\n" +
			"Refusals and the records of one workload identity are found at once; anything else is searched, so give --from.",
		Example: examples(
			"tabard audit query --user-ref 6f0c… --outcome released --from 720h", "who was given this user's tokens in 30 days",
			"tabard audit query --denied --from 24h", "what was refused today",
			"tabard audit query --provider google-calendar --from 24h -n 10", "the last ten that concern a provider",
			"tabard audit query --principal calendar --from 2026-11-23T10:00:00Z --to 2026-11-23T11:00:00Z --output json", "one hour of one principal"),
	}
	var q query
	cmd.Flags().IntVarP(&q.n, "lines", "n", 0, "only the last so many of them, 1 to 1000 (default all)")
	q.filter.addFlags(cmd, f)
	q.out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := q.out.check(); err != nil {
			return err
		}
		if cmd.Flags().Changed("lines") && (q.n < 1 || q.n > maxTail) {
			return usage("tabard audit query -n 100", "-n is 1 to %d, not %d", maxTail, q.n)
		}
		if err := q.filter.check(time.Now()); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		return q.run(cmd, c)
	}
	return cmd
}

// query searches the trail, and prints what it finds.
type query struct {
	n      int // the last so many; 0 for all
	filter auditFilter
	out    output
}

func (l *query) run(cmd *cobra.Command, c *client) error {
	to := tail{out: l.out, table: newTable(cmd.OutOrStdout(), l.out.env, auditColumns()), json: json.NewEncoder(cmd.OutOrStdout())}
	note := newMeter(cmd)
	q := l.filter.q
	q.MaxResults = maxTail
	var last []api.AuditRecord
	for first := true; first || q.NextToken != ""; first = false {
		a, err := call[api.ListAuditRecordsResponse](cmd.Context(), c, api.OpListAuditRecords, q)
		if err != nil {
			return err
		}
		q.NextToken = a.NextToken
		if l.n > 0 { // what matches is found from the oldest on
			last = append(last, a.Records...)
			last = last[max(0, len(last)-l.n):]
			if len(last) > 0 {
				note.say("searched up to %s", when(last[len(last)-1].Time))
			}
			continue
		}
		note.done()
		if len(a.Records) > 0 || first {
			if err := to.print(a.Records, first); err != nil {
				return err
			}
		}
	}
	note.done()
	if l.n == 0 {
		return nil
	}
	return to.print(last, true)
}
