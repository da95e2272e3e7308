package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

// unknown warns of a name that nothing has yet. That is allowed, since things are made in any order, but a name that
// was mistyped permits nothing, and forbids nothing. names are of the things that there are.
func unknown(cmd *cobra.Command, what, name, until string, names []string) {
	hint := ""
	if near := nearest(name, names); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", oneLine(near))
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "warning: there is no %s %s%s: %s\n", what, oneLine(name), hint, until)
}

// unknownWorkload is unknown of a workload identity, where there is none of the name. Who may not look is not warned.
func unknownWorkload(ctx context.Context, cmd *cobra.Command, c *client, name, until string) {
	q := api.GetWorkloadIdentityRequest{Name: name}
	if _, is, err := found(call[api.GetWorkloadIdentityResponse](ctx, c, api.OpGetWorkloadIdentity, q)); is || err != nil {
		return
	}
	if all, err := listWorkloads(ctx, c); err == nil {
		unknown(cmd, "workload identity", name, until, namesIn(all, func(w api.WorkloadIdentityType) string { return w.Name }))
	}
}

func namesIn[T any](all []T, name func(T) string) (names []string) {
	for _, one := range all {
		names = append(names, name(one))
	}
	return names
}

// nearest is the name that is least edits away, if those are few for its length, or "".
func nearest(name string, names []string) (near string) {
	best := 1 + max(1, min(3, len(name)/3))
	for _, n := range names {
		if d := edits(strings.ToLower(name), strings.ToLower(n)); d < best {
			near, best = n, d
		}
	}
	return near
}

// edits is how many letters have to be put in, left out or changed (Levenshtein), or two neighbours swapped.
func edits(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := append([]int{i}, make([]int, len(b))...)
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
