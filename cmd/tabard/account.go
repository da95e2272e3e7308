package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
)

func newAccount(t terminal) *cobra.Command {
	cmd := group("account", "Accounts: tenants that share nothing", `
An account has its own principals, agents, providers and connections, and sees nothing of another's. Only root of the
installation's own account administers accounts; root of an account administers what is in it.`)
	cmd.Example = examples("tabard account create acme --output-file acme.credentials", "a tenant, with its first root key",
		"tabard account set-quotas 123456789012 --workload-identities 100", "how much it may have", "tabard account list", "all of them")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(accountCreate(&f), accountList(t, &f), accountShow(t, &f), accountDisable(t, &f), accountEnable(t, &f), accountQuotas(t, &f))
	return cmd
}

// quotaFlags are the flags of quotas.
type quotaFlags struct{ q api.AccountQuotas }

func (f *quotaFlags) addFlags(cmd *cobra.Command) {
	for _, one := range []struct {
		at   *int64
		name string
	}{
		{&f.q.WorkloadIdentities, "workload-identities"}, {&f.q.CredentialProviders, "credential-providers"}, {&f.q.Principals, "principals"},
		{&f.q.Policies, "policies"}, {&f.q.Connections, "connections"}, {&f.q.RequestsPerSecond, "requests-per-second"},
	} {
		cmd.Flags().Int64Var(one.at, one.name, 0, "`number` of "+strings.ReplaceAll(one.name, "-", " ")+" that it may have (0: the server's default)")
	}
}

func accountCreate(f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create an account with its first root key", Args: exactly("NAME"), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Creates an account, its principal root and that one's first access key, and prints the key once, in the form of AWS's credentials\n" +
			"file. With --output-file it is not printed but written to a new file that only its owner can read.",
		Example: examples(
			"tabard account create acme --output-file acme.credentials", "then AWS_SHARED_CREDENTIALS_FILE=acme.credentials AWS_PROFILE=acme",
			"tabard account create acme --account-id 123456789012 --workload-identities 100 > acme.credentials", "with a number of your own, and a quota"),
	}
	var quotas quotaFlags
	quotas.addFlags(cmd)
	id := cmd.Flags().String("account-id", "", "12 `digits` (default: a free number)")
	file := cmd.Flags().String("output-file", "", "write the key to a new `file`, mode 0600")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := api.CreateAccountRequest{Name: args[0], AccountID: *id, Quotas: &quotas.q}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		create := func(w io.Writer) error {
			a, err := call[api.CreateAccountResponse](cmd.Context(), c, api.OpCreateAccount, q)
			if err != nil {
				return err
			}
			if a.Account == nil {
				return errors.New("the server's answer has no account")
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "account %s %s\n", a.Account.AccountID, oneLine(a.Account.Name))
			return writeKey(w, args[0], a.RootAccessKey, "tabard root recover --of "+a.Account.AccountID)
		}
		return intoFile(cmd, *file, create)
	}
	return cmd
}

// intoFile has fill write to a new file of that name and says so, or without a name to standard output.
func intoFile(cmd *cobra.Command, file string, fill func(io.Writer) error) error {
	if file == "" {
		return fill(cmd.OutOrStdout())
	}
	if err := writeFile(file, fill); err != nil { // the file comes first: a key that cannot be written would be lost
		return err
	}
	return say(cmd, "%s", file)
}

// writeKey writes a key as a profile of AWS's credentials file. again is how to get another where it cannot be written.
func writeKey(w io.Writer, profile string, k *api.CreatedAccessKey, again string) error {
	if k == nil {
		return errors.New("the server's answer has no access key")
	}
	_, err := fmt.Fprintf(w, "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", profile, k.AccessKeyID, secret.New(string(k.SecretAccessKey)).Expose())
	if err != nil {
		return fmt.Errorf("the key %s was made but could not be written (%w): %s makes another", k.AccessKeyID, err, again)
	}
	return nil
}

func accountColumns() []column[api.Account] {
	type row = api.Account
	return []column[row]{
		{name: "ACCOUNT", text: func(a row) string { return a.AccountID }},
		{name: "NAME", text: func(a row) string { return a.Name }},
		{name: "STATUS", text: func(a row) string { return string(a.Status) }, tint: func(a row) colour {
			if a.Status == api.StandingStatusDisabled {
				return red
			}
			return plain
		}},
		{name: "QUOTAS", text: quotaText},
		{name: "REASON", text: func(a row) string { return a.Reason }},
		{name: "CREATED", text: func(a row) string { return when(a.CreatedTime) }},
	}
}

func quotaText(a api.Account) string {
	if a.Quotas == nil {
		return "-"
	}
	var parts []string
	add := func(name string, n int64) {
		if n > 0 {
			parts = append(parts, name+"="+strconv.FormatInt(n, 10))
		}
	}
	add("workload-identities", a.Quotas.WorkloadIdentities)
	add("credential-providers", a.Quotas.CredentialProviders)
	add("principals", a.Quotas.Principals)
	add("policies", a.Quotas.Policies)
	add("connections", a.Quotas.Connections)
	add("requests-per-second", a.Quotas.RequestsPerSecond)
	return list(parts)
}

func listAccounts(ctx context.Context, c *client) ([]api.Account, error) {
	return allPages(func(token string) ([]api.Account, string, error) {
		a, err := call[api.ListAccountsResponse](ctx, c, api.OpListAccounts, api.ListAccountsRequest{NextToken: token})
		return a.Accounts, a.NextToken, err
	})
}

func accountNumbers(f *finder) cobra.CompletionFunc {
	return fromServer(f, namesOf(listAccounts, func(a api.Account) cobra.Completion {
		return cobra.CompletionWithDesc(a.AccountID, a.Name)
	}))
}

func accountList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the accounts", Args: exactly(),
		Example: examples("tabard account list", "for people", "tabard account list --output json", "for scripts, in the form of the API"),
	}
	listing(cmd, t, f, listAccounts, accountColumns())
	return cmd
}

func accountShow(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ACCOUNT", Short: "Show an account", Args: exactly("ACCOUNT"), ValidArgsFunction: accountNumbers(f),
		Example: examples("tabard account show 123456789012", "by its number", "tabard account show acme --output json", "by its name, for scripts"),
	}
	answering(cmd, t, f, func(ctx context.Context, c *client, args []string) (api.Account, error) {
		all, err := listAccounts(ctx, c)
		if err != nil {
			return api.Account{}, err
		}
		for _, a := range all {
			if a.AccountID == args[0] || a.Name == args[0] {
				return a, nil
			}
		}
		return api.Account{}, &failure{exit: exitFailed, msg: fmt.Sprintf("there is no account %s", oneLine(args[0])), hints: []string{"tabard account list shows them"}}
	}, accountColumns())
	return cmd
}

func accountDisable(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "disable ACCOUNT", Short: "Refuse every call of an account", Args: exactly("ACCOUNT"), ValidArgsFunction: accountNumbers(f),
		Long: "Refuses every call of an account within two seconds: of its keys, of its federated workloads, of its users in a browser. Its\n" +
			"workload access tokens stay dead when it is enabled again; its data stays. The installation's own account cannot be disabled.",
		Example: examples("tabard account disable 123456789012 --reason 'left us'", "by its number"),
	}
	reason := cmd.Flags().String("reason", "", "`why`, for lists")
	switching(cmd, t, f, func(ctx context.Context, c *client, id string) (*api.Account, error) {
		a, err := call[api.DisableAccountResponse](ctx, c, api.OpDisableAccount, api.DisableAccountRequest{AccountID: id, Reason: *reason})
		return a.Account, err
	}, accountColumns())
	return cmd
}

func accountEnable(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "enable ACCOUNT", Short: "Serve an account again", Args: exactly("ACCOUNT"), ValidArgsFunction: accountNumbers(f),
		Example: examples("tabard account enable 123456789012", "by its number"),
	}
	switching(cmd, t, f, func(ctx context.Context, c *client, id string) (*api.Account, error) {
		a, err := call[api.EnableAccountResponse](ctx, c, api.OpEnableAccount, api.EnableAccountRequest{AccountID: id})
		return a.Account, err
	}, accountColumns())
	return cmd
}

func accountQuotas(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "set-quotas ACCOUNT", Short: "Bound what an account may have", Args: exactly("ACCOUNT"), ValidArgsFunction: accountNumbers(f),
		Long: "Sets all quotas of an account: what is not given is the server's default (tabard serve --default-quota). What the account has\n" +
			"already it keeps; beyond a quota nothing is added.",
		Example: examples(
			"tabard account set-quotas 123456789012 --workload-identities 100 --requests-per-second 50", "two bounds, and no other of its own",
			"tabard account set-quotas 123456789012", "none of its own"),
	}
	var quotas quotaFlags
	quotas.addFlags(cmd)
	switching(cmd, t, f, func(ctx context.Context, c *client, id string) (*api.Account, error) {
		a, err := call[api.UpdateAccountResponse](ctx, c, api.OpUpdateAccount, api.UpdateAccountRequest{AccountID: id, Quotas: &quotas.q})
		return a.Account, err
	}, accountColumns())
	return cmd
}
