package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newSigningKey(t terminal) *cobra.Command {
	cmd := group("signing-key", "Signing keys: what the server signs JWTs with", `
The server signs an account's tokens for others (purpose tokens, with keys of each account's own), the JWTs by which it names
clients and agents to providers (purpose assertions), and checkpoints and receipts (purpose audit). Every thirty days it
makes a new key of each by itself, which is published a week before it signs. Nobody has to do anything, unless a key may
have got out: tabard signing-key rotate tokens --revoke.`)
	cmd.Example = examples(
		"tabard signing-key list", "which keys there are",
		"tabard signing-key rotate tokens", "a new key, for no hurry: it signs in ten minutes, and nothing fails",
		"tabard signing-key rotate tokens --revoke", "a key got out: the old ones end now, and so do the tokens they signed")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(signingKeyList(t, &f), signingKeyRotate(t, &f))
	return cmd
}

func signingKeyColumns() []column[api.SigningKey] {
	type row = api.SigningKey
	return []column[row]{
		{name: "KEY ID", text: func(k row) string { return k.KeyID }},
		{name: "PURPOSE", text: func(k row) string { return strings.ToLower(string(k.Purpose)) }},
		{name: "STATUS", text: func(k row) string { return string(k.Status) }, tint: func(k row) colour {
			if k.Status == api.SigningKeyStatusRevoked {
				return red
			}
			return plain
		}},
		{name: "CREATED", text: func(k row) string { return when(k.CreatedTime) }},
	}
}

func signingKeyList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the signing keys", Args: exactly(),
		Long: `Lists the keys of this period of thirty days, the last one and the next. CURRENT signs; NEXT is published and signs later;
PREVIOUS is published for what it signed; REVOKED verifies nothing any more.`,
		Example: examples("tabard signing-key list", "all", "tabard signing-key list --output json", "for scripts"),
	}
	listing(cmd, t, f, func(ctx context.Context, c *client) ([]api.SigningKey, error) {
		a, err := call[api.ListSigningKeysResponse](ctx, c, api.OpListSigningKeys, api.ListSigningKeysRequest{})
		return a.Keys, err
	}, signingKeyColumns())
	return cmd
}

func signingKeyRotate(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate PURPOSE", Short: "Replace a signing key", Args: exactly("PURPOSE"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return []cobra.Completion{"tokens", "assertions", "audit"}, cobra.ShellCompDirectiveNoFileComp
		},
		Long: `Makes a new key and prints it. It is published at once and signs in ten minutes, when every verifier has it; what the old
one signed verifies until its end.

With --revoke the new key signs at once, and every other key of the purpose is erased: what they signed is inactive on this
server at once, on its other replicas within seconds, and at whoever verifies by himself as soon as he reads the published
keys again (they may be kept for five minutes; a token lives ten). Checkpoints of the trail and receipts that revoked keys of
the purpose audit signed prove nothing any more, for any account: it takes root. The next checkpoint begins a new series, which covers
the whole trail and says what it follows (docs/audit.md). The keys of the purpose tokens are the account's own; the others take an administrator of the installation's own account.`,
		Example: examples(
			"tabard signing-key rotate tokens", "no hurry",
			"tabard signing-key rotate tokens --revoke", "the key got out"),
	}
	revoke := cmd.Flags().Bool("revoke", false, "erase every other key of the purpose at once")
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		a, err := call[api.RotateSigningKeyResponse](cmd.Context(), c, api.OpRotateSigningKey, api.RotateSigningKeyRequest{
			Purpose: api.SigningPurpose(strings.ToUpper(args[0])), Revoke: *revoke,
		})
		if err != nil {
			return err
		}
		var made []api.SigningKey
		if a.Key != nil {
			made = append(made, *a.Key)
		}
		return show(cmd, out, made, signingKeyColumns())
	}
	return cmd
}
