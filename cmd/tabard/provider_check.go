package main

import (
	"cmp"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func providerTest(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "test NAME", Short: "Check that a credential provider can work", Args: exactly("NAME"), ValidArgsFunction: providerNames(f),
		Long: "Has the server try the provider: its metadata, the client's authentication, PKCE. With a user's token, from the identity provider where\n" +
			"your users log in, it also says whether that names a user here. Why a host was not reached is told to root of the\n" +
			"installation's own account only, and is in the server's log. The exit code is 1 where a check failed.",
		Example: examples("tabard provider test google-calendar", "what is wrong, before a user meets it",
			"tabard provider test google-calendar --user-token-file token", "is it encrypted, for another audience, of another issuer?"),
	}
	token := hidden{what: "user token", flag: "user-token-file"}
	token.addFlag(cmd, t)
	columns := []column[api.ProviderCheck]{
		{name: "CHECK", text: func(c api.ProviderCheck) string { return c.Name }},
		{name: "STATUS", text: func(c api.ProviderCheck) string { return string(c.Status) }, tint: func(c api.ProviderCheck) colour {
			if c.Status == api.CheckStatusFail {
				return red
			}
			return plain
		}},
		{name: "DETAIL", text: func(c api.ProviderCheck) string { return cmp.Or(c.Detail, "-") }},
	}
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		q := api.TestProviderRequest{ProviderName: args[0]}
		if token.given() {
			user, err := token.read(cmd)
			if err != nil {
				return err
			}
			q.UserToken = api.Sensitive(user.Expose())
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		a, err := call[api.TestProviderResponse](cmd.Context(), c, api.OpTestProvider, q)
		if err != nil {
			return err
		}
		if err := show(cmd, out, a.Checks, columns); err != nil {
			return err
		}
		for _, check := range a.Checks {
			if check.Status == api.CheckStatusFail {
				return &failure{exit: exitFailed, msg: testFailed(args[0], check.Name)}
			}
		}
		return nil
	}
	return cmd
}

// testFailed says what the failed check keeps from working.
func testFailed(provider, check string) string {
	if check == "user-token" {
		return "the user token would not be accepted: see the check user-token"
	}
	return "the provider " + provider + " would not work: see the check " + oneLine(check)
}
