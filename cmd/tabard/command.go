package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// group returns a command that only has commands below it.
func group(use, short, long string) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: strings.TrimSpace(long)}
	asGroup(cmd)
	return cmd
}

// asGroup makes cmd print its help when it is given no arguments, and makes an unknown command below it a usage error,
// where cobra would print the help and succeed.
func asGroup(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.ValidArgsFunction = cobra.NoFileCompletions // cobra itself completes the commands below
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
}

func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	hint := fmt.Sprintf("%s --help lists the commands", cmd.CommandPath())
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		hint = fmt.Sprintf("did you mean %s %s?", cmd.CommandPath(), near[0])
	}
	return usage(hint, "unknown command %q of %s", name, cmd.CommandPath())
}

// helpCommand is cobra's help command, but a topic that does not exist is a usage error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about a command",
		Example: examples("tabard help serve", "every setting of the server", "tabard help exit-codes", "what scripts may rely on"),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(cmd.Root(), args[0])
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			found, _, err := cmd.Root().Find(args)
			var names []cobra.Completion
			if err == nil {
				for _, sub := range found.Commands() {
					if sub.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(sub.Name(), sub.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// exactly checks the number of arguments; names are those of the usage line.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		hint := "usage: " + cmd.UseLine()
		switch {
		case len(args) > len(names):
			return usage(hint, "%q is one argument too many for %s", args[len(names)], cmd.CommandPath())
		case len(args) < len(names):
			return usage(hint, "%s needs %s", cmd.CommandPath(), strings.Join(names[len(args):], " and "))
		}
		return nil
	}
}

// onlyName is exactly("NAME") for a command that also needs a secret: what was given too much may be one, and is not
// repeated.
func onlyName(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage("usage: "+cmd.UseLine(), "%s takes one argument, NAME; a secret is never an argument", cmd.CommandPath())
	}
	return exactly("NAME")(cmd, args)
}

// badFlag turns a flag error of cobra's into a usage error with a hint.
func badFlag(cmd *cobra.Command, err error) error {
	hint := fmt.Sprintf("%s --help lists the flags", cmd.CommandPath())
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		if near := nearestFlag(cmd, unknown.GetSpecifiedName()); near != "" {
			hint = "did you mean --" + near + "?"
		}
	}
	return usage(hint, "%s", oneLine(err.Error()))
}

// nearestFlag returns the flag whose name is closest to a mistyped one, or "" where none is close.
func nearestFlag(cmd *cobra.Command, name string) string {
	best, least := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		d := edits(name, f.Name)
		if len(name) > 1 && (strings.HasPrefix(f.Name, name) || strings.HasPrefix(name, f.Name)) {
			d = min(d, 2)
		}
		if d < least && !f.Hidden {
			best, least = f.Name, d
		}
	})
	return best
}

// examples lays out pairs of a command line and what it is for.
func examples(pairs ...string) string {
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(&b, "  # %s\n  %s\n", pairs[i+1], pairs[i])
	}
	return strings.TrimRight(b.String(), "\n")
}

// oneOf completes a flag from a fixed list.
func oneOf(values ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

// complete registers the completion of a flag that the caller has just defined.
func complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err) // a flag that is not defined: a fault of ours, found by the first test
	}
}
