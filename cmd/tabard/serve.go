package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tabard-id/tabard/internal/daemon"
)

func newServe(t terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server", Args: exactly(), Long: serveHelp(),
		Example: examples(
			"tabard serve", "an embedded database in ./tabard-data, on 127.0.0.1:8180",
			"tabard serve --dev", "the same, for development: trusts any issuer on loopback",
			"tabard serve --addr :8443 --public-url https://tabard.example.com --tls-cert cert.pem --tls-key key.pem", "with TLS, for others to reach",
			"TABARD_DB_FILE=/run/secrets/db tabard serve --config tabard.yaml --key-file /run/secrets/key", "PostgreSQL, with its secrets in files"),
	}
	config := cmd.Flags().String("config", "", "`file` of settings in YAML (TABARD_CONFIG)")
	for _, s := range daemon.Settings() {
		if !s.EnvOnly {
			addSetting(cmd.Flags(), s)
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		src := daemon.Sources{File: *config, Environ: t.environ(), Flags: map[string]string{}}
		if src.File == "" {
			src.File = t.env("TABARD_CONFIG")
		}
		for _, s := range daemon.Settings() {
			if f := cmd.Flags().Lookup(s.Name); f != nil && f.Changed {
				src.Flags[s.Name] = valueOf(f)
			}
		}
		return serve(cmd.Context(), t, src)
	}
	return cmd
}

// serveHelp names the settings that are no flags, and the variables of those that are.
func serveHelp() string {
	var b strings.Builder
	b.WriteString(`Runs the server until it gets SIGINT or SIGTERM, then lets requests in flight finish; a second signal ends it at once.
Start-up lines are on stdout, the log on stderr in JSON, one line a request.

Each flag is also a key of the configuration file and an environment variable: --data-dir, data-dir, TABARD_DATA_DIR.
A flag wins over the environment, and that over the file. The file may also have a list named issuers.
Secrets are never flags. They come from the environment or, better, from a file that the environment names:
`)
	for _, s := range daemon.Settings() {
		if s.EnvOnly {
			fmt.Fprintf(&b, "\n  %s, or %s_FILE\n      %s", s.Env(), s.Env(), s.Help)
		} else if s.File {
			fmt.Fprintf(&b, "\n  %s_FILE\n      the value of --%s", s.Env(), s.Name)
		}
	}
	return b.String()
}

// addSetting makes a flag of a setting.
func addSetting(flags *pflag.FlagSet, s daemon.Setting) {
	switch {
	case s.Bool:
		flags.Bool(s.Name, false, s.Help)
	case s.List:
		flags.StringSlice(s.Name, nil, s.Help)
	default:
		flags.String(s.Name, s.Default, s.Help)
	}
}

// valueOf is the flag's value in the form of the settings: lists are comma-separated.
func valueOf(f *pflag.Flag) string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return strings.Join(list.GetSlice(), ",")
	}
	if b, err := strconv.ParseBool(f.Value.String()); err == nil && f.Value.Type() == "bool" {
		return strconv.FormatBool(b)
	}
	return f.Value.String()
}

func serve(ctx context.Context, t terminal, src daemon.Sources) error {
	c, err := daemon.Load(src)
	if err != nil {
		return &failure{exit: exitUsage, msg: oneLine(err.Error()), hints: []string{"tabard serve --help lists the settings"}, err: err}
	}
	c.Out, c.Version = t.out, readBuild().Version
	c.Log = slog.New(slog.NewJSONHandler(t.err, nil))
	daemon.TuneMemory()
	srv, err := daemon.New(ctx, c)
	if err != nil {
		if ctx.Err() != nil {
			return errors.New("stopped before the start was complete")
		}
		return startFailure(err, c.Addr)
	}
	return srv.Run(ctx)
}

// startFailure adds what to do, where that is not in the sentence.
func startFailure(err error, addr string) error {
	f := &failure{exit: exitFailed, msg: oneLine(err.Error()), err: err}
	if errors.Is(err, syscall.EADDRINUSE) {
		if addr == "" {
			addr = daemon.DefaultAddr
		}
		f.hints = []string{fmt.Sprintf("something listens on %s already: give another --addr; port 0 takes a free one", addr)}
	}
	return f
}
