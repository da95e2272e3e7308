package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

const maxJWKS = 64 << 10 // the model's bound

func newIssuer(t terminal) *cobra.Command {
	cmd := group("issuer", "Trusted issuers: whose tokens name users",
		"A user is who a token of a trusted issuer names. Those of the server's configuration file are listed here too, and change only there.")
	cmd.Example = examples("tabard issuer add https://login.example.com --audience my-app", "trust an issuer", "tabard issuer list", "those that are trusted")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(issuerAdd(t, &f), issuerList(t, &f), issuerLogin(t, &f), issuerRemove(&f))
	addStandings(cmd, t, &f, issuerStandings())
	cmd.AddCommand(issuerAcceptEndpoints(t, &f))
	return cmd
}

func issuerAcceptEndpoints(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "accept-endpoints URL", Short: "Accept that an issuer's endpoints moved to other hosts", Args: exactly("URL"), ValidArgsFunction: issuerURLs(f),
		Long: "Accepts the hosts that the issuer's metadata names now for its keys and its UserInfo endpoint. Until then requests that lead to other\n" +
			"hosts than before are refused. Those of a login client change by tabard issuer login alone. A disabled issuer stays disabled.",
		Example: examples("tabard issuer accept-endpoints https://login.example.com", "after its operator has confirmed the move"),
	}
	switching(cmd, t, f, func(ctx context.Context, c *client, url string) (*api.Standing, error) {
		a, err := call[api.EnableTrustedIssuerResponse](ctx, c, api.OpEnableTrustedIssuer, api.EnableTrustedIssuerRequest{Issuer: url, AcceptEndpoints: true})
		return a.Standing, err
	}, standingColumns())
	return cmd
}

func issuerAdd(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "add URL", Short: "Trust an issuer", Args: exactly("URL"),
		Long: "Trusts the tokens of an issuer, whose URL must be, byte for byte, the claim iss of its tokens.\n" +
			"An audience or a client id is needed: without one, tokens that its users gave to any other application would name them here.",
		Example: examples(
			"tabard issuer add https://login.example.com --audience my-app", "tokens for my-app, keys by discovery",
			"tabard issuer add https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbC --client-id 4a7b --token-use access", "Cognito: client_id and no aud",
			"tabard issuer add https://login.microsoftonline.com/TENANT/v2.0 --audience APP --subject-claim oid", "Entra: sub differs in each application",
			"tabard issuer add https://idp.internal --audience my-app --claim email_verified=true --workload 'calendar-*'", "narrower",
			"tabard issuer add https://idp.internal --audience my-app --policy-claim groups --policy-claim acr", "policies may ask for the user's groups",
			"tabard issuer add https://idp.internal --audience my-app --backchannel-logout", "users who sign out there end their tokens here",
			"tabard issuer add https://idp.internal --audience my-app --jwks-file keys.json", "keys from a file"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	var q api.CreateTrustedIssuerRequest
	var use, keys string
	var claims []string
	flags := cmd.Flags()
	flags.StringArrayVar(&q.Audiences, "audience", nil, "`audience` (aud) to accept; may be given again")
	flags.StringArrayVar(&q.ClientIDs, "client-id", nil, "`client` (client_id, azp) to accept; may be given again")
	flags.StringVar(&use, "token-use", "", "tokens to accept: access, id or any (default any)")
	flags.StringArrayVar(&q.Workloads, "workload", nil, "`pattern` of workload identities it may be used for (default all); may be given again")
	flags.StringArrayVar(&claims, "claim", nil, "`name=value` that a token must have; may be given again")
	flags.StringVar(&q.SubjectClaim, "subject-claim", "", "`claim` that names the user; cannot be changed later (default sub)")
	flags.StringVar(&q.JWKSURI, "jwks-uri", "", "`URL` of the issuer's keys (default by discovery)")
	flags.StringVar(&keys, "jwks-file", "", "`file` with the issuer's keys, a JWK set")
	flags.BoolVar(&q.Userinfo, "userinfo", false, "allow asking the issuer's UserInfo endpoint, for which the user's token is kept")
	flags.StringArrayVar(&q.PolicyClaims, "policy-claim", nil, "`claim` that policies may ask for, such as groups; may be given again")
	flags.BoolVar(&q.BackchannelLogout, "backchannel-logout", false, "end the tokens of users who sign out at the issuer, whose client has the LOGOUT URL that is shown as its backchannel_logout_uri")
	complete(cmd, "token-use", oneOf("access", "id", "any"))
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q.Issuer, q.TokenUse = args[0], api.TokenUse(use)
		if len(q.Audiences)+len(q.ClientIDs) == 0 {
			return usage("usage: tabard issuer add URL --audience NAME", "an issuer needs --audience or --client-id")
		}
		if q.JWKSURI != "" && keys != "" {
			return usage("give one of them", "--jwks-uri and --jwks-file contradict each other")
		}
		var err error
		if q.Claims, err = parseClaims(claims); err != nil {
			return err
		}
		if keys != "" {
			if q.JWKS, err = readJWKS(keys); err != nil {
				return err
			}
		}
		if err := out.check(); err != nil {
			return err
		}
		return createIssuer(cmd, f, out, q)
	}
	return cmd
}

func createIssuer(cmd *cobra.Command, f *finder, out output, q api.CreateTrustedIssuerRequest) error {
	c, err := f.dial(cmd.Context())
	if err != nil {
		return err
	}
	a, err := call[api.CreateTrustedIssuerResponse](cmd.Context(), c, api.OpCreateTrustedIssuer, q)
	if err != nil {
		return err
	}
	return show(cmd, out, pointed(a.TrustedIssuer), issuerColumns())
}

func parseClaims(pairs []string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	claims := map[string]string{}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usage("for example --claim email_verified=true", "--claim %q is not name=value", oneLine(pair))
		}
		if _, twice := claims[name]; twice {
			return nil, usage("a claim has one value", "--claim %s is given twice", oneLine(name))
		}
		claims[name] = value
	}
	return claims, nil
}

func readJWKS(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("--jwks-file: %w", err)
	}
	if info.Size() > maxJWKS {
		return "", usage("a JWK set has a few keys", "--jwks-file %s has more than %d bytes", path, maxJWKS)
	}
	doc, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("--jwks-file: %w", err)
	}
	return string(doc), nil
}

func issuerColumns() []column[api.TrustedIssuer] {
	type row = api.TrustedIssuer
	return []column[row]{
		{name: "ISSUER", text: func(i row) string { return i.Issuer }},
		{name: "AUDIENCES", text: func(i row) string { return list(i.Audiences) }},
		{name: "CLIENT IDS", text: func(i row) string { return list(i.ClientIDs) }},
		{name: "TOKEN USE", text: func(i row) string { return string(i.TokenUse) }},
		{name: "SUBJECT", text: func(i row) string { return i.SubjectClaim }},
		{name: "WORKLOADS", text: func(i row) string {
			if len(i.Workloads) == 0 {
				return "all"
			}
			return list(i.Workloads)
		}},
		{name: "KEYS", text: func(i row) string { return string(i.JWKSSource) }},
		{name: "POLICY CLAIMS", text: func(i row) string { return list(i.PolicyClaims) }},
		{name: "SOURCE", text: func(i row) string { return string(i.Source) }},
		{name: "LOGOUT URL", text: func(i row) string { return cmp.Or(i.BackchannelLogoutURI, "-") }},
	}
}

func listIssuers(ctx context.Context, c *client) ([]api.TrustedIssuer, error) {
	return allPages(func(token string) ([]api.TrustedIssuer, string, error) {
		a, err := call[api.ListTrustedIssuersResponse](ctx, c, api.OpListTrustedIssuers, api.ListTrustedIssuersRequest{NextToken: token})
		return a.TrustedIssuers, a.NextToken, err
	})
}

func issuerList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the trusted issuers", Args: exactly(),
		Example: examples("tabard issuer list", "for people", "tabard issuer list --output json", "for scripts, in the form of the API"),
	}
	listing(cmd, t, f, listIssuers, issuerColumns())
	return cmd
}

func issuerRemove(f *finder) *cobra.Command {
	return &cobra.Command{
		Use: "remove URL", Short: "End the trust in an issuer", Args: exactly("URL"),
		Long:    "Ends the trust in an issuer. Workload access tokens of its users that are out already stay valid until they end, within an hour: tabard issuer disable ends them at once.",
		Example: examples("tabard issuer remove https://login.example.com", "its tokens name nobody from now on"),
		ValidArgsFunction: fromServer(f, func(ctx context.Context, c *client) ([]cobra.Completion, error) {
			issuers, err := listIssuers(ctx, c)
			var names []cobra.Completion
			for _, i := range issuers {
				if i.Source == api.IssuerSourceAPI {
					names = append(names, i.Issuer)
				}
			}
			return names, err
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := call[api.DeleteTrustedIssuerResponse](cmd.Context(), c, api.OpDeleteTrustedIssuer, api.DeleteTrustedIssuerRequest{Issuer: args[0]}); err != nil {
				return err
			}
			return say(cmd, "removed %s", args[0])
		},
	}
}
