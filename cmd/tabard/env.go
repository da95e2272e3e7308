package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/internal/daemon"
)

// variable is one line of tabard env.
type variable struct{ name, value string }

// shells is how a variable is exported, and what must be escaped within its quotes.
func assignment(shell string, v variable) (string, error) {
	switch shell {
	case "sh":
		return fmt.Sprintf("export %s='%s'", v.name, strings.ReplaceAll(v.value, `'`, `'\''`)), nil
	case "fish":
		return fmt.Sprintf("set -gx %s '%s';", v.name, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v.value)), nil
	case "powershell":
		return fmt.Sprintf("$env:%s = '%s'", v.name, strings.ReplaceAll(v.value, `'`, `''`)), nil
	}
	return "", usage("one of sh, fish and powershell (sh is for bash and zsh too)", "unknown shell %q", oneLine(shell))
}

func newEnv(t terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use: "env", Short: "Print the variables that point AWS SDKs at the server", Args: exactly(),
		Long: `Prints the variables that point the AWS SDKs, and AWS's Python package bedrock-agentcore, at the server. They are
the variables of this one service: AWS_ENDPOINT_URL is never among them, because it would send an agent's S3 traffic
here. No secret is printed: where the server made the root access key, the variables name its file and profile.`,
		Example: examples(
			`eval "$(tabard env)"`, "in the directory where the server was started",
			`eval "$(tabard env --data-dir /var/lib/tabard)"`, "a server with another data directory",
			"tabard env --shell fish | source", "fish",
			"tabard env --shell powershell | Out-String | Invoke-Expression", "PowerShell",
			`eval "$(tabard env --endpoint https://tabard.example.com)"`, "a server elsewhere; bring your own access key"),
	}
	var f finder
	f.addFlags(cmd, t)
	shell := cmd.Flags().String("shell", "sh", "`shell` to write for: sh, fish or powershell")
	complete(cmd, "shell", oneOf("sh", "fish", "powershell"))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.ignoreEnvironment = true // this command makes those variables; stale ones must not come back
		where, err := f.find()
		if err != nil {
			return err
		}
		vars, err := f.variables(where)
		if err != nil {
			return err
		}
		if t.env("AWS_ACCESS_KEY_ID") != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning: AWS_ACCESS_KEY_ID is set, and AWS SDKs prefer it to a profile: unset it to use the server's")
		}
		return printVariables(cmd.OutOrStdout(), *shell, vars)
	}
	return cmd
}

func printVariables(w io.Writer, shell string, vars []variable) error {
	for _, v := range vars {
		line, err := assignment(shell, v)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// variables lists what to export for the server at where.
func (f *finder) variables(where location) ([]variable, error) {
	vars := []variable{
		{"AWS_ENDPOINT_URL_BEDROCK_AGENTCORE", where.url},
		{"AWS_ENDPOINT_URL_BEDROCK_AGENTCORE_CONTROL", where.url},
		{"AWS_ENDPOINT_URL_TABARD", where.url}, // our own operations, for who has their model in AWS_DATA_PATH
		{"BEDROCK_AGENTCORE_DP_ENDPOINT", where.url},
		{"BEDROCK_AGENTCORE_CP_ENDPOINT", where.url},
		{"AWS_REGION", where.region},
		{"AWS_DEFAULT_REGION", where.region}, // all that plain boto3 and the aws command read
	}
	if !where.fromDataDir || !exists(daemon.CredentialsPath(f.dataDir)) {
		return vars, nil
	}
	path, err := filepath.Abs(daemon.CredentialsPath(f.dataDir))
	if err != nil {
		return nil, err
	}
	return append(vars, variable{"AWS_PROFILE", daemon.Profile}, variable{"AWS_SHARED_CREDENTIALS_FILE", path}), nil
}
