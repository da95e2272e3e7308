package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func auditCheckpoint(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "checkpoint", Short: "Make a checkpoint now", Args: exactly(),
		Long:    "Makes a checkpoint, as the server does each minute, and prints its token and nothing else: keep it where no administrator of the database can write.",
		Example: examples("tabard audit checkpoint > kept.jwt", "before something risky"),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		a, err := call[api.CreateAuditCheckpointResponse](cmd.Context(), c, api.OpCreateAuditCheckpoint, api.CreateAuditCheckpointRequest{})
		if err != nil {
			return err
		}
		return say(cmd, "%s", a.Checkpoint.Token)
	}
	return cmd
}

func auditCheckpoints(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "checkpoints", Short: "List checkpoints, the newest first", Args: exactly(),
		Example: examples("tabard audit checkpoints -n 5", "the last five", "tabard audit checkpoints -n 1 --token > kept.jwt", "the last one, to be kept"),
	}
	var out output
	n := cmd.Flags().IntP("number", "n", 20, "how many, at most")
	tokens := cmd.Flags().Bool("token", false, "print the tokens and nothing else, one a line")
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		if *n < 1 {
			return usage("tabard audit checkpoints -n 5", "-n is a number above 0, not %d", *n)
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		var all []api.AuditCheckpoint
		q := api.ListAuditCheckpointsRequest{}
		for first := true; len(all) < *n && (first || q.NextToken != ""); first = false {
			a, err := call[api.ListAuditCheckpointsResponse](cmd.Context(), c, api.OpListAuditCheckpoints, q)
			if err != nil {
				return err
			}
			all, q.NextToken = append(all, a.Checkpoints...), a.NextToken
		}
		all = all[:min(len(all), *n)]
		if !*tokens {
			return show(cmd, out, all, checkpointColumns())
		}
		for _, one := range all {
			if err := say(cmd, "%s", one.Token); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func checkpointColumns() []column[api.AuditCheckpoint] {
	type row = api.AuditCheckpoint
	return []column[row]{
		{name: "ID", text: func(r row) string { return r.CheckpointID }},
		{name: "TIME", text: func(r row) string { return when(r.Time) }},
		{name: "RECORDS", text: func(r row) string { return fmt.Sprint(r.Records) }},
		{name: "WRITERS", text: func(r row) string { return fmt.Sprint(r.Writers) }},
	}
}

func auditKeys(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "keys", Short: "Print the keys that verify checkpoints", Args: exactly(),
		Long:    "Prints the public keys as a JWK set, as anybody can read them at /tabard/audit-keys.json of the server. Keep them with the checkpoints.",
		Example: examples("tabard audit keys > keys.json", "for tabard audit verify --segment"),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		doc, err := c.send(cmd.Context(), http.MethodGet, "/tabard/audit-keys.json", nil)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(doc)
		return err
	}
	return cmd
}
