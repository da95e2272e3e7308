package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newUser(t terminal) *cobra.Command {
	cmd := group("user", "Users: stop serving one, or forget one", `
A user is whom an agent acts for. Name one by the reference that the audit trail and tabard connection list show
(--ref; --output json has the whole), as the tokens of an issuer do (--issuer and --subject), or by the id that an
application asserts (--id).`)
	cmd.Example = examples(
		"tabard user disable --issuer https://login.example.com --subject 8c1f --reason 'left the company'", "no agent acts for this user",
		"tabard user erase --id customer-17", "end everything, and forget who it was")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(userDisable(t, &f), userEnable(t, &f), listDisabled(t, &f, "tabard user ", api.StandingKindUser), userErase(t, &f))
	return cmd
}

// userFlags name a user.
type userFlags struct {
	api.UserSelector
	prefix string
}

// add adds the flags; their names begin with prefix, but for that of the reference, which is ref.
func (u *userFlags) add(cmd *cobra.Command, ref, prefix string) {
	u.prefix = prefix
	flags := cmd.Flags()
	flags.StringVar(&u.UserRef, ref, "", "the user with this `reference`")
	flags.StringVar(&u.Issuer, prefix+"issuer", "", "a user of this issuer, by `URL`; with --"+prefix+"subject")
	flags.StringVar(&u.Subject, prefix+"subject", "", "`subject` of the user at --"+prefix+"issuer")
	flags.StringVar(&u.UserID, prefix+"id", "", "the user with this `id`, which an application asserted")
}

// selector returns the user that the flags name, or nil where they name none.
func (u *userFlags) selector() (*api.UserSelector, error) {
	if (u.Issuer == "") != (u.Subject == "") {
		return nil, usage("a subject means something at its issuer only", "--%sissuer and --%ssubject go together", u.prefix, u.prefix)
	}
	ways := 0
	for _, given := range []string{u.UserRef, u.Issuer, u.UserID} {
		if given != "" {
			ways++
		}
	}
	switch ways {
	case 0:
		return nil, nil
	case 1:
		return &u.UserSelector, nil
	}
	return nil, usage("give one of them", "a user is named in one way")
}

// required is selector where there must be a user.
func (u *userFlags) required(cmd *cobra.Command) (*api.UserSelector, error) {
	sel, err := u.selector()
	if err == nil && sel == nil {
		err = usage("for example --issuer https://login.example.com --subject 8c1f", "%s needs a user", cmd.CommandPath())
	}
	return sel, err
}

// userCommand makes cmd do something to the user that its flags name, and print the answer.
func userCommand[T any](cmd *cobra.Command, t terminal, f *finder, do func(cmd *cobra.Command, c *client, user *api.UserSelector) ([]T, error), columns []column[T]) {
	var out output
	out.addFlag(cmd, t)
	var user userFlags
	user.add(cmd, "ref", "")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		sel, err := user.required(cmd)
		if err != nil {
			return err
		}
		if err := out.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		rows, err := do(cmd, c, sel)
		if err != nil {
			return err
		}
		return show(cmd, out, rows, columns)
	}
}

func userDisable(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "disable", Short: "Stop serving a user", Args: exactly(),
		Long: "Disables a user: no agent gets or uses a token on their behalf, and their open consents cannot be finished. It takes effect\n" +
			"everywhere within two seconds. Nothing is deleted: tabard user enable undoes it, but workload access tokens of before stay dead.",
		Example: examples("tabard user disable --issuer https://login.example.com --subject 8c1f --reason 'left the company'", "as the issuer names the user"),
	}
	reason := reasonFlag(cmd)
	userCommand(cmd, t, f, func(cmd *cobra.Command, c *client, user *api.UserSelector) ([]api.Standing, error) {
		a, err := call[api.DisableUserResponse](cmd.Context(), c, api.OpDisableUser, api.DisableUserRequest{User: user, Reason: *reason})
		return pointed(a.Standing), err
	}, standingColumns())
	return cmd
}

func userEnable(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "enable", Short: "Serve a disabled user again", Args: exactly(),
		Example: examples("tabard user enable --ref 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "by the reference in tabard user list-disabled"),
	}
	userCommand(cmd, t, f, func(cmd *cobra.Command, c *client, user *api.UserSelector) ([]api.Standing, error) {
		a, err := call[api.EnableUserResponse](cmd.Context(), c, api.OpEnableUser, api.EnableUserRequest{User: user})
		return pointed(a.Standing), err
	}, standingColumns())
	return cmd
}

func userErase(t terminal, f *finder) *cobra.Command {
	type answer = api.EraseUserResponse
	cmd := &cobra.Command{
		Use: "erase", Short: "End everything of a user, and forget who it was", Args: exactly(),
		Long: "Ends every connection and token of a user, here and at the providers, and deletes who the user is. The audit trail stays as it\n" +
			"is, so that it can still be verified: the reference in it names nobody any more. This cannot be undone.",
		Example: examples("tabard user erase --id customer-17 --reason 'asked for it on 3 March'", "the application's own id for the user"),
	}
	reason := reasonFlag(cmd)
	userCommand(cmd, t, f, func(cmd *cobra.Command, c *client, user *api.UserSelector) ([]answer, error) {
		a, err := call[answer](cmd.Context(), c, api.OpEraseUser, api.EraseUserRequest{User: user, Reason: *reason})
		return []answer{a}, err
	}, []column[answer]{
		{name: "USER", text: func(a answer) string { return a.UserRef }},
		{name: "CONNECTIONS REVOKED", text: func(a answer) string { return fmt.Sprint(a.ConnectionsRevoked) }},
		{name: "RECEIPT", text: func(a answer) string {
			if a.Receipt == "" {
				return "-"
			}
			return a.Receipt
		}},
	})
	return cmd
}
