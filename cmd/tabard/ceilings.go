package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func workloadCeilings(t terminal, f *finder) *cobra.Command {
	type answer = api.GetCeilingsResponse
	cmd := &cobra.Command{
		Use: "ceilings NAME", Short: "Show or set what an agent may have in a time", Args: exactly("NAME"), ValidArgsFunction: workloadNames(f),
		Long: "Shows the ceilings of a workload identity, and what it has had of them; with flags it sets those first, and leaves the others.\n" +
			"Crossing one refuses the release and is an event in the audit trail; with --freeze it also stops the agent until\n" +
			"tabard workload enable. Until ceilings are set, those of the server hold: settings users-per-hour and releases-per-minute.",
		Example: examples(
			"tabard workload ceilings calendar-agent", "what there is",
			"tabard workload ceilings calendar-agent --users-per-hour 50 --freeze", "a stolen key yields the tokens of 50 users, and then nothing",
			"tabard workload ceilings calendar-agent --releases-per-minute 0", "no bound on releases"),
	}
	var given api.Ceilings
	flags := cmd.Flags()
	flags.Int64Var(&given.UsersPerHour, "users-per-hour", 0, "`number` of users whose tokens it may have in an hour, 0 for no bound")
	flags.Int64Var(&given.ReleasesPerMinute, "releases-per-minute", 0, "`number` of tokens and keys it may have in a minute, 0 for no bound")
	flags.BoolVar(&given.Freeze, "freeze", false, "stop the agent when it crosses one; --freeze=false refuses only")
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (answer, error) {
		a, err := call[answer](ctx, c, api.OpGetCeilings, api.GetCeilingsRequest{WorkloadName: args[0]})
		changed := flags.Changed("users-per-hour") || flags.Changed("releases-per-minute") || flags.Changed("freeze")
		if err != nil || !changed {
			return a, err
		}
		if flags.Changed("users-per-hour") {
			a.Ceilings.UsersPerHour = given.UsersPerHour
		}
		if flags.Changed("releases-per-minute") {
			a.Ceilings.ReleasesPerMinute = given.ReleasesPerMinute
		}
		if flags.Changed("freeze") {
			a.Ceilings.Freeze = given.Freeze
		}
		set, err := call[api.SetCeilingsResponse](ctx, c, api.OpSetCeilings, api.SetCeilingsRequest{WorkloadName: args[0], Ceilings: a.Ceilings})
		a.Ceilings = set.Ceilings
		return a, err
	}, ceilingColumns())
	return cmd
}

func ceilingColumns() []column[api.GetCeilingsResponse] {
	type row = api.GetCeilingsResponse
	bound := func(had, most int64) string {
		if most == 0 {
			return fmt.Sprintf("%d of any", had)
		}
		return fmt.Sprintf("%d of %d", had, most)
	}
	return []column[row]{
		{name: "USERS THIS HOUR", text: func(a row) string { return bound(a.UsersThisHour, a.Ceilings.UsersPerHour) }},
		{name: "RELEASES THIS MINUTE", text: func(a row) string { return bound(a.ReleasesThisMinute, a.Ceilings.ReleasesPerMinute) }},
		{name: "WHEN CROSSED", text: func(a row) string {
			if a.Ceilings.Freeze {
				return "freeze"
			}
			return "refuse"
		}},
		{name: "STATUS", text: func(a row) string { return string(a.Status) }, tint: func(a row) colour {
			if a.Status != api.StandingStatusActive {
				return red
			}
			return plain
		}},
	}
}
