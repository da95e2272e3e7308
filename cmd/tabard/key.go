package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
)

func newKey(t terminal) *cobra.Command {
	cmd := group("key", "Access keys: what principals sign with", "A principal may have several access keys, so that one can be replaced without a pause: create, roll out, disable the old.")
	cmd.Example = examples("tabard key create calendar --output-file calendar.credentials", "a key for the principal calendar", "tabard key list", "all of them")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(keyCreate(&f), keyRotate(&f), keyList(t, &f),
		keySwitch(t, &f, "disable", "Refuse an access key", disableKey), keySwitch(t, &f, "enable", "Accept an access key again", enableKey))
	return cmd
}

func keyCreate(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create PRINCIPAL", Short: "Create an access key", Args: exactly("PRINCIPAL"), ValidArgsFunction: principalNames(f),
		Long: "Creates an access key and prints it once, in the form of AWS's credentials file. The server cannot show the secret again.\n" +
			"With --output-file it is not printed but written to a new file that only its owner can read.",
		Example: examples(
			"tabard key create calendar --output-file calendar.credentials", "into a file; then AWS_SHARED_CREDENTIALS_FILE=calendar.credentials AWS_PROFILE=calendar",
			"tabard key create calendar --profile default > credentials", "for a container that reads ~/.aws/credentials"),
	}
	file := cmd.Flags().String("output-file", "", "write the key to a new `file`, mode 0600")
	profile := cmd.Flags().String("profile", "", "`name` of the profile to write (default the principal's)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := api.CreateAccessKeyRequest{PrincipalName: args[0]}
		if *profile == "" {
			*profile = args[0]
		}
		if bad := (&api.CreateAccessKeyRequest{PrincipalName: *profile}).Validate(); len(bad) > 0 {
			return usage("a name such as default", "--profile %s", bad[0].Message) // it must fit between brackets
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		if *file == "" {
			return createKey(cmd.Context(), c, q, *profile, cmd.OutOrStdout())
		}
		// The file comes first: a key whose secret cannot be written would be lost.
		if err := writeFile(*file, func(w io.Writer) error { return createKey(cmd.Context(), c, q, *profile, w) }); err != nil {
			return err
		}
		return say(cmd, "%s", *file)
	}
	return cmd
}

// createKey creates a key and writes it to w. A key that could not be written is disabled again, because nobody has it.
func createKey(ctx context.Context, c *client, q api.CreateAccessKeyRequest, profile string, w io.Writer) error {
	a, err := call[api.CreateAccessKeyResponse](ctx, c, api.OpCreateAccessKey, q)
	if err != nil {
		return err
	}
	if a.AccessKey == nil {
		return errors.New("the server's answer has no access key")
	}
	id, key := a.AccessKey.AccessKeyID, secret.New(string(a.AccessKey.SecretAccessKey))
	_, err = fmt.Fprintf(w, "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", profile, id, key.Expose())
	if err == nil {
		return nil
	}
	if _, undo := disableKey(context.WithoutCancel(ctx), c, id); undo != nil {
		return fmt.Errorf("the key %s was created but could not be written (%w): disable it", id, err)
	}
	return fmt.Errorf("the key could not be written, and is disabled: %w", err)
}

// writeFile makes a file that did not exist, mode 0600, with what fill writes; where fill fails there is no file.
func writeFile(path string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usage("name another file, or move that one away", "--output-file %s exists already", filepath.Clean(path))
	}
	if err != nil {
		return fmt.Errorf("--output-file: %w", err)
	}
	err = fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func keyRotate(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate PRINCIPAL", Short: "Create a second access key, and disable the first", Args: exactly("PRINCIPAL"), ValidArgsFunction: principalNames(f),
		Long: "Creates an access key beside the one that the principal has, and prints it or writes it to --output-file. The old one stays good\n" +
			"until it is disabled: run the command again with --finish once the new key is in use, which disables all keys but the newest. It is\n" +
			"refused while the newest was never used, unless --force is given. That a key was used is seen up to a minute later.",
		Example: examples(
			"tabard key rotate calendar --output-file calendar.credentials", "the new key; roll it out, and watch LAST USED of tabard key list",
			"tabard key rotate calendar --finish", "then end the old one"),
	}
	file := cmd.Flags().String("output-file", "", "write the key to a new `file`, mode 0600")
	finish := cmd.Flags().Bool("finish", false, "disable all enabled keys but the newest")
	force := cmd.Flags().Bool("force", false, "with --finish, also if the newest key was never used")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		if *finish {
			return finishRotation(cmd, c, args[0], *force)
		}
		return intoFile(cmd, *file, func(w io.Writer) error {
			return createKey(cmd.Context(), c, api.CreateAccessKeyRequest{PrincipalName: args[0]}, args[0], w)
		})
	}
	return cmd
}

// finishRotation disables all enabled keys of a principal but the newest, and says which.
func finishRotation(cmd *cobra.Command, c *client, principal string, force bool) error {
	keys, err := listKeys(principal)(cmd.Context(), c)
	if err != nil {
		return err
	}
	keys = slices.DeleteFunc(keys, func(k api.AccessKey) bool { return k.Status != api.AccessKeyStatusActive })
	if len(keys) < 2 {
		return &failure{exit: exitFailed, msg: fmt.Sprintf("principal %s has %d enabled access keys, so none is old", principal, len(keys)),
			hints: []string{"tabard key rotate " + principal + " makes a new one first"}}
	}
	slices.SortFunc(keys, func(a, b api.AccessKey) int { return a.CreatedTime.Compare(b.CreatedTime.Time) })
	newest := keys[len(keys)-1]
	if newest.LastUsedTime.IsZero() && !force {
		return &failure{exit: exitFailed, msg: fmt.Sprintf("the newest key of principal %s, %s, was never used: whoever works with an older one would be refused", principal, newest.AccessKeyID),
			hints: []string{"roll it out first; LAST USED of tabard key list is up to a minute late", "tabard key rotate " + principal + " --finish --force disables the others anyway"}}
	}
	for _, k := range keys[:len(keys)-1] {
		if _, err := disableKey(cmd.Context(), c, k.AccessKeyID); err != nil {
			return err
		}
		if err := say(cmd, "disabled %s", k.AccessKeyID); err != nil {
			return err
		}
	}
	return nil
}

func keyColumns() []column[api.AccessKey] {
	type row = api.AccessKey
	return []column[row]{
		{name: "ACCESS KEY ID", text: func(k row) string { return k.AccessKeyID }},
		{name: "PRINCIPAL", text: func(k row) string { return k.PrincipalName }},
		{name: "STATUS", text: func(k row) string { return string(k.Status) }, tint: func(k row) colour {
			if k.Status == api.AccessKeyStatusDisabled {
				return red
			}
			return plain
		}},
		{name: "CREATED", text: func(k row) string { return when(k.CreatedTime) }},
		{name: "LAST USED", text: func(k row) string { return when(k.LastUsedTime) }},
	}
}

func listKeys(principal string) func(ctx context.Context, c *client) ([]api.AccessKey, error) {
	return func(ctx context.Context, c *client) ([]api.AccessKey, error) {
		return allPages(func(token string) ([]api.AccessKey, string, error) {
			a, err := call[api.ListAccessKeysResponse](ctx, c, api.OpListAccessKeys, api.ListAccessKeysRequest{PrincipalName: principal, NextToken: token})
			return a.AccessKeys, a.NextToken, err
		})
	}
}

func keyList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the access keys", Args: exactly(),
		Long:    "Lists the access keys, never their secrets.",
		Example: examples("tabard key list", "all", "tabard key list --principal calendar --output json", "those of one principal, for scripts"),
	}
	principal := cmd.Flags().String("principal", "", "only the keys of this principal, by `name`")
	complete(cmd, "principal", principalNames(f))
	listing(cmd, t, f, func(ctx context.Context, c *client) ([]api.AccessKey, error) { return listKeys(*principal)(ctx, c) }, keyColumns())
	return cmd
}

func disableKey(ctx context.Context, c *client, id string) (*api.AccessKey, error) {
	a, err := call[api.DisableAccessKeyResponse](ctx, c, api.OpDisableAccessKey, api.DisableAccessKeyRequest{AccessKeyID: id})
	return a.AccessKey, err
}

func enableKey(ctx context.Context, c *client, id string) (*api.AccessKey, error) {
	a, err := call[api.EnableAccessKeyResponse](ctx, c, api.OpEnableAccessKey, api.EnableAccessKeyRequest{AccessKeyID: id})
	return a.AccessKey, err
}

func keySwitch(t terminal, f *finder, verb, short string, do func(context.Context, *client, string) (*api.AccessKey, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " ID", Short: short, Args: exactly("ID"),
		Long:    short + ". It takes effect within a second.",
		Example: examples("tabard key "+verb+" TABARDQ7RZK3M5XW2YAB", "by the id that tabard key list shows"),
		ValidArgsFunction: fromServer(f, func(ctx context.Context, c *client) ([]cobra.Completion, error) {
			keys, err := listKeys("")(ctx, c)
			var ids []cobra.Completion
			for _, k := range keys {
				ids = append(ids, cobra.CompletionWithDesc(k.AccessKeyID, k.PrincipalName))
			}
			return ids, err
		}),
	}
	switching(cmd, t, f, do, keyColumns())
	return cmd
}
