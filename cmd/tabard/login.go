package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func issuerLogin(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "login URL", Short: "Set the client that signs an issuer's users in", Args: exactly("URL"),
		Long: "Sets the OpenID Connect client by which the server itself signs the issuer's users in: hosted consent, for agents without a web application.\n" +
			"It prints the redirect URI, which the issuer must have registered for the client. A client set earlier is replaced.",
		Example: examples(
			"tabard issuer login https://login.example.com --client-id tabard --client-secret-file client.secret", "a confidential client",
			"tabard issuer login https://login.example.com --client-id tabard", "a public client: PKCE alone"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	var q api.SetIssuerLoginRequest
	flags := cmd.Flags()
	flags.StringVar(&q.ClientID, "client-id", "", "`client` at the issuer (required)")
	key := hidden{what: "client secret", flag: "client-secret-file", variable: "TABARD_CLIENT_SECRET_FILE"}
	key.addFlag(cmd, t)
	flags.StringArrayVar(&q.Scopes, "scope", nil, "`scope` to ask for besides openid; may be given again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q.Issuer = args[0]
		if q.ClientID == "" {
			return usage("usage: tabard issuer login URL --client-id ID", "a login client needs --client-id")
		}
		if key.given() {
			text, err := key.read(cmd)
			if err != nil {
				return err
			}
			q.ClientSecret = api.Sensitive(text.Expose())
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		a, err := call[api.SetIssuerLoginResponse](cmd.Context(), c, api.OpSetIssuerLogin, q)
		if excepted(err, api.ExceptionResourceNotFound) {
			return hinted(err, "tabard issuer add %s --audience YOUR_APPLICATION trusts it", oneLine(args[0]))
		}
		if e, ok := errors.AsType[*apiError](err); ok && excepted(err, api.ExceptionServiceUnavailable) {
			return hinted(err, "the server's log has the cause, under request id %s", e.requestID)
		}
		if err != nil {
			return err
		}
		return say(cmd, "register this redirect URI at the issuer: %s", a.RedirectURI)
	}
	return cmd
}
