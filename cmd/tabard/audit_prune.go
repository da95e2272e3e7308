package main

import (
	"context"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func auditPrune(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove the records behind a checkpoint", Args: exactly(),
		Long: `Removes every record that a checkpoint covers. The trail stays verifiable: the next checkpoint says behind which one it begins,
and pruning is recorded. It takes the root principal, a checkpoint older than the server's audit-keep-days (30 by default), and
audit sinks that have the records and this pruning's own. The records must have been exported first: --exported verifies that the files hold all of them, up to
the checkpoint, before anything is removed. --without-export removes them for ever.`,
		Example: examples("tabard audit prune --before 4f1d2c9b8a7e6d5c4f1d --exported trail.jsonl", "what trail.jsonl has, up to that checkpoint",
			"tabard audit prune --before 4f1d2c9b8a7e6d5c4f1d --without-export", "records that the sinks have"),
	}
	var p pruner
	cmd.Flags().StringVar(&p.before, "before", "", "`id` of the checkpoint (tabard audit checkpoints)")
	cmd.Flags().StringArrayVar(&p.exported, "exported", nil, "exported `file` that has the records; may be given again")
	cmd.Flags().BoolVar(&p.without, "without-export", false, "remove records that nobody has elsewhere")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case p.before == "":
			return usage("tabard audit checkpoints lists them", "--before ID is missing")
		case (len(p.exported) > 0) == p.without:
			return usage("tabard audit export trail.jsonl", "give --exported FILE, or --without-export")
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		return p.run(cmd, c)
	}
	return cmd
}

type pruner struct {
	before   string
	exported []string
	without  bool
}

func (p *pruner) run(cmd *cobra.Command, c *client) error {
	note := newMeter(cmd)
	if !p.without {
		if err := p.check(cmd.Context(), c, note); err != nil {
			return err
		}
	}
	removed := int64(0)
	for {
		a, err := call[api.PruneAuditResponse](cmd.Context(), c, api.OpPruneAudit, api.PruneAuditRequest{CheckpointID: p.before})
		if err != nil {
			return err
		}
		if a.RecordsRemoved == 0 {
			break
		}
		removed += a.RecordsRemoved
		note.say("%d records removed", removed)
	}
	note.done()
	return say(cmd, "removed %d records behind checkpoint %s", removed, p.before)
}

// check holds the exported files against the checkpoint.
func (p *pruner) check(ctx context.Context, c *client, note *meter) error {
	keys, err := c.send(ctx, http.MethodGet, "/tabard/audit-keys.json", nil)
	if err != nil {
		return err
	}
	token, err := p.token(ctx, c)
	if err != nil {
		return err
	}
	v, err := verifySegments(token, keys, p.exported, func(n int64) { note.say("%d records verified", n) })
	if err != nil {
		return &failure{exit: exitUsage, msg: oneLine(err.Error()), err: err}
	}
	if !v.Sound() {
		return &failure{exit: exitFailed, msg: "the exported files do not hold what is to be removed: " + v.Findings[0].Message,
			hints: []string{"tabard audit export FILE adds what is missing; tabard audit verify says whether the trail itself was changed"}}
	}
	return nil
}

func (p *pruner) token(ctx context.Context, c *client) (string, error) {
	for q, first := (api.ListAuditCheckpointsRequest{}), true; first || q.NextToken != ""; first = false {
		a, err := call[api.ListAuditCheckpointsResponse](ctx, c, api.OpListAuditCheckpoints, q)
		if err != nil {
			return "", err
		}
		if i := slices.IndexFunc(a.Checkpoints, func(one api.AuditCheckpoint) bool { return one.CheckpointID == p.before }); i >= 0 {
			return a.Checkpoints[i].Token, nil
		}
		q.NextToken = a.NextToken
	}
	return "", &failure{exit: exitFailed, msg: "there is no checkpoint " + oneLine(p.before), hints: []string{"tabard audit checkpoints lists them"}}
}
