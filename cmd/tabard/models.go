package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newModels(t terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use: "models DIR", Short: "Write the models by which AWS SDKs call Tabard's own operations", Args: exactly("DIR"),
		Long: `Writes into DIR, which is made where it is not there, what boto3 and the aws command need to call the operations that
are Tabard's own: boto3.client("tabard") and aws tabard list-principals. Prints the variable that tells them of it; an
AWS_DATA_PATH that is set stays part of it. tabard env prints the address. Files of an earlier version are replaced.
DIR/tabard.smithy.json is the same model for Smithy's generators of clients.`,
		Example: examples(
			`eval "$(tabard models ~/.tabard-models)"`, "this shell knows the models",
			"tabard models ~/.tabard-models --shell fish | source", "fish"),
	}
	shell := cmd.Flags().String("shell", "sh", "`shell` to write for: sh, fish or powershell")
	complete(cmd, "shell", oneOf("sh", "fish", "powershell"))
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		folders := filepath.SplitList(t.env("AWS_DATA_PATH"))
		if !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
		line := variable{"AWS_DATA_PATH", strings.Join(folders, string(os.PathListSeparator))}
		if _, err := assignment(*shell, line); err != nil {
			return err // before anything is written
		}
		if err := writeModels(dir); err != nil {
			return err
		}
		return printVariables(cmd.OutOrStdout(), *shell, []variable{line})
	}
	return cmd
}

// writeModels copies the models into dir. They are no secret: anyone may read them.
func writeModels(dir string) error {
	models := api.AWSData()
	return fs.WalkDir(models, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(path))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		text, err := fs.ReadFile(models, path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, text, 0o644)
	})
}
