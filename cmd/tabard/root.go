package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/secret"
)

// rootName is the name of the principal that every account has from the start.
const rootName = "root"

func newRootKey(t terminal) *cobra.Command {
	cmd := group("root", "The root principal: rotate, disable, recover", `
Every account has a principal named root, which may do everything in it. Make principals for daily use, then rotate
root's key and put it away, or disable root. Whoever has the server's key file can recover it.`)
	cmd.Example = examples("tabard root rotate", "a new key for root, the old ones disabled", "tabard root recover --data-dir /var/lib/tabard", "the way back in")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(rootRotate(&f), rootSwitch(t, &f, "disable", "Refuse root with all its access keys", disablePrincipal),
		rootSwitch(t, &f, "enable", "Accept root again", enablePrincipal), rootRecover(t, &f))
	return cmd
}

func rootRotate(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate", Short: "Give root a new access key and disable its others", Args: exactly(),
		Long: "Gives the account's root a new access key and disables all its others, in one step. Where the command signs with the key in the\n" +
			"credentials file of a data directory on this machine, that file is replaced; else the key is printed once, or written to --output-file.",
		Example: examples("tabard root rotate", "the file in ./tabard-data is replaced", "tabard root rotate --output-file root.credentials", "into another file"),
	}
	file := cmd.Flags().String("output-file", "", "write the key to a new `file`, mode 0600")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		own := ownCredentials(c, f.dataDir)
		local := *file == "" && own != ""
		rotate := func(write func(*api.CreatedAccessKey) error) error {
			a, err := call[api.RotateRootKeyResponse](cmd.Context(), c, api.OpRotateRootKey, api.RotateRootKeyRequest{})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "disabled %s\n", list(a.DisabledAccessKeyIDs))
			return write(a.AccessKey)
		}
		if !local {
			return intoFile(cmd, *file, func(w io.Writer) error {
				return rotate(func(k *api.CreatedAccessKey) error { return writeKey(w, daemon.Profile, k, "tabard root recover") })
			})
		}
		err = rotate(func(k *api.CreatedAccessKey) error {
			if k == nil {
				return writeKey(nil, "", k, "")
			}
			if err := daemon.WriteCredentials(own, k.AccessKeyID, secret.New(string(k.SecretAccessKey))); err != nil {
				return fmt.Errorf("the key %s was made but could not be written (%w): tabard root recover makes another", k.AccessKeyID, err)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return say(cmd, "%s", own)
	}
	return cmd
}

// ownCredentials is the credentials file of a server's data directory that the command signed with, "" where it signed
// with another key. Which directory that is says the command line, or the variables of tabard env.
func ownCredentials(c *client, dataDir string) string {
	if !c.fromDataDir {
		named := os.Getenv("AWS_SHARED_CREDENTIALS_FILE")
		if dataDir = filepath.Dir(named); named != daemon.CredentialsPath(dataDir) {
			return ""
		}
	}
	own := daemon.CredentialsPath(dataDir)
	if _, err := os.Stat(daemon.EndpointPath(dataDir)); err != nil || !holdsKey(own, c.credentials.AccessKeyID) {
		return "" // a file of somebody's own, that may hold other keys too
	}
	return own
}

// holdsKey reports whether the credentials file has the access key.
func holdsKey(path, id string) bool {
	have, _, err := daemon.ReadCredentials(path)
	return err == nil && have == id
}

func rootSwitch(t terminal, f *finder, verb, short string, do func(context.Context, *client, string) (*api.Principal, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb, Short: short, Args: exactly(),
		Long:    short + ". It takes effect within a second. Another principal with the role root can enable it, and tabard root recover.",
		Example: examples("tabard root "+verb, "in the account of the key that signs"),
	}
	answering(cmd, t, f, func(ctx context.Context, c *client, _ []string) (api.Principal, error) {
		p, err := do(ctx, c, rootName)
		return pointee(p), err
	}, principalColumns())
	return cmd
}

func rootRecover(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "recover", Short: "Make a new root key on the server's machine", Args: exactly(),
		Long: "Makes a new access key of root straight in the database, enables root and disables all its other keys: the way back in when every\n" +
			"root key is lost or disabled. It needs the server's key file and database, and no server; on SQLite the server has to be stopped.\n" +
			"The trail records it. The key of the installation's own account is written to the data directory's credentials file, which a start\n" +
			"of the server reads. Settings come from --config and the TABARD_ variables too, as for tabard serve.",
		Example: examples(
			"tabard root recover --data-dir /var/lib/tabard", "an embedded database; the server is stopped",
			"TABARD_DB_FILE=/run/secrets/db tabard root recover --key-file /run/secrets/key", "PostgreSQL; the server may run",
			"tabard root recover --of 123456789012 --output-file acme.credentials", "of another account"),
	}
	src := daemon.Sources{}
	flags := cmd.Flags()
	flags.StringVar(&src.File, "config", "", "`file` of settings in YAML (TABARD_CONFIG)")
	of := flags.String("of", "", "`account` whose root it is (default the installation's own)")
	file := flags.String("output-file", "", "with --of, write the key to a new `file`, mode 0600")
	names := []string{"db", "key-file", "account"}
	for _, s := range daemon.Settings() {
		for _, name := range names {
			if s.Name == name {
				addSetting(flags, s)
			}
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		src.Environ, src.Flags = t.environ(), map[string]string{}
		if src.File == "" {
			src.File = t.env("TABARD_CONFIG")
		}
		if f.dataDir != "" {
			src.Flags["data-dir"] = f.dataDir
		}
		for _, name := range names {
			if flag := flags.Lookup(name); flag.Changed {
				src.Flags[name] = valueOf(flag)
			}
		}
		return recoverRoot(cmd, src, *of, *file)
	}
	return cmd
}

func recoverRoot(cmd *cobra.Command, src daemon.Sources, of, file string) error {
	c, err := daemon.Load(src)
	if err != nil {
		return &failure{exit: exitUsage, msg: oneLine(err.Error()), err: err, hints: []string{"tabard root recover --help lists the settings"}}
	}
	if file != "" && exists(file) {
		return usage("name another file, or move that one away", "--output-file %s exists already", file)
	}
	got, err := daemon.RecoverRoot(cmd.Context(), c, of)
	if got.AccessKeyID == "" {
		return &failure{exit: exitFailed, msg: oneLine(err.Error()), err: err}
	}
	k := &api.CreatedAccessKey{AccessKeyID: got.AccessKeyID, SecretAccessKey: api.Sensitive(got.Secret.Expose())}
	switch {
	case err != nil: // the key is good, its file is not there: better shown than lost
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", oneLine(err.Error()))
		return writeKey(cmd.OutOrStdout(), daemon.Profile, k, "tabard root recover")
	case got.Path != "":
		fmt.Fprintf(cmd.ErrOrStderr(), "root is enabled with the new key %s, its other keys are disabled\n", got.AccessKeyID)
		return say(cmd, "%s", got.Path)
	}
	return intoFile(cmd, file, func(w io.Writer) error { return writeKey(w, of, k, "tabard root recover") })
}
