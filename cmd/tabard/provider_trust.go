package main

import (
	"cmp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

// trusting is what an answer about one provider says of the JWTs that the provider gets from the server.
type trusting struct {
	arn, callback string
	config        *api.Oauth2ProviderConfigOutput
}

// lines are what to register at the provider before it believes the server's JWTs; none where it gets none.
func (p trusting) lines() []string {
	s := settingsOf(p.config)
	if s.custom == nil {
		return nil
	}
	client := s.authMethod == api.ClientAuthenticationMethodTypeAwsIamIdTokenJwt
	actor := false
	if o := s.custom.OnBehalfOfTokenExchangeConfig; o != nil && o.TokenExchangeGrantTypeConfig != nil {
		actor = o.TokenExchangeGrantTypeConfig.ActorTokenContent == api.ActorTokenContentTypeAwsIamIdTokenJwt
	}
	if !client && !actor {
		return nil
	}
	issuer, _, ok := strings.Cut(p.callback, "/identities/oauth2/callback/") // where browsers reach the server is who it is
	if !ok {
		return nil
	}
	out := []string{"", "register at the provider:", "issuer    " + issuer, "keys      " + issuer + "/oauth2/jwks"}
	if client {
		out = append(out, "subject   "+p.arn)
	}
	if actor {
		directory, _, _ := strings.Cut(p.arn, ":token-vault/")
		out = append(out, "actors    "+directory+":workload-identity-directory/default/workload-identity/*")
	}
	// The discovery URL says the issuer but for a slash at its end.
	audience, _, _ := strings.Cut(s.discoveryURL, "/.well-known/")
	return append(out, "audience  "+cmp.Or(s.issuer, audience))
}

// sayTrust has cmd print the lines after its table.
func sayTrust(cmd *cobra.Command, answer func() trusting) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := run(cmd, args); err != nil {
			return err
		}
		if format, err := cmd.Flags().GetString("output"); err != nil || format != "table" {
			return err
		}
		for _, line := range answer().lines() {
			if err := say(cmd, "%s", oneLine(line)); err != nil {
				return err
			}
		}
		return nil
	}
}
