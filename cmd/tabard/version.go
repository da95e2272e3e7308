package main

import (
	"crypto/fips140"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build says what this binary is.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Changed bool   `json:"changed,omitempty"` // built from a tree with uncommitted changes
	Go      string `json:"go"`
	FIPS    bool   `json:"fips140"` // Go's FIPS 140-3 module is in use
}

func readBuild() build {
	b := build{Version: "dev", Go: runtime.Version(), FIPS: fips140.Enabled()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Changed = s.Value == "true"
		}
	}
	return b
}

func newVersion() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "What this binary is", Args: exactly(),
		Long: "Version, commit and Go version of this binary, and whether Go's FIPS 140-3 module is on (GODEBUG=fips140=on).\n" +
			"Tabard claims no FIPS conformance either way.",
		Example: examples("tabard version", "for people", "tabard version --json", "for scripts"),
	}
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b := readBuild()
		if *asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(b)
		}
		state := "off"
		if b.FIPS {
			state = "on"
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "tabard %s\n", b.Version)
		if b.Commit != "" && err == nil {
			changed := ""
			if b.Changed {
				changed = " (with changes)"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "commit %s%s\n", b.Commit, changed)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "go     %s\nfips   %s\n", b.Go, state)
		return err
	}
	return cmd
}
