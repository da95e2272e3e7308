package main

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
)

func newFederation(t terminal) *cobra.Command {
	cmd := group("federation", "Workloads that need no access key: whose tokens they have, and who they are", `
A workload whose platform gives it a token (Kubernetes, SPIFFE, AWS, GitHub, any OIDC issuer) needs no access key. An issuer
says whose tokens are read, a rule which of them stand for which principal. With both, an AWS SDK needs only its standard
variables:

  AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/tabard/token
  AWS_ROLE_ARN=arn:aws:iam::ACCOUNT:role/PRINCIPAL
  AWS_ENDPOINT_URL_STS=https://tabard.example.com

or, of a container:

  AWS_CONTAINER_CREDENTIALS_FULL_URI=https://tabard.example.com/container-credentials/ACCOUNT/PRINCIPAL
  AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/var/run/secrets/tabard/token`)
	cmd.Example = examples(
		"tabard federation issuer add https://kubernetes.default.svc --audience tabard --jwks-file keys.json", "trust a cluster",
		"tabard federation rule add https://kubernetes.default.svc 'system:serviceaccount:prod:calendar' calendar", "its service account is the principal calendar",
		"tabard federation rule list", "who may be whom")
	var f finder
	f.addFlags(cmd, t)
	issuer := group("issuer", "Whose tokens name workloads", "An issuer alone gives nobody anything: rules do.")
	issuer.AddCommand(workloadIssuerAdd(t, &f), workloadIssuerList(t, &f), workloadIssuerRemove(&f))
	rule := group("rule", "Which tokens stand for which principal", "A token that no rule fits is refused. No rule leads to a principal with the role root.")
	rule.AddCommand(ruleAdd(t, &f), ruleList(t, &f), ruleRemove(&f))
	cmd.AddCommand(issuer, rule)
	return cmd
}

func workloadIssuerAdd(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "add ISSUER", Short: "Trust an issuer of workloads' tokens", Args: exactly("ISSUER"),
		Long: "Trusts an issuer: a URL that is, byte for byte, the claim iss of its tokens, or a SPIFFE trust domain. Tokens for any other audience\n" +
			"are refused, and so are those for several, unless --allow-other-audiences: each of them could present the token here.",
		Example: examples(
			"tabard federation issuer add https://oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE --audience tabard", "Kubernetes, keys by discovery",
			"kubectl get --raw /openid/v1/jwks > keys.json && tabard federation issuer add https://kubernetes.default.svc.cluster.local --audience tabard --jwks-file keys.json",
			"a cluster whose issuer cannot be reached from here",
			"tabard federation issuer add https://token.actions.githubusercontent.com --audience https://tabard.example.com", "GitHub Actions",
			"tabard federation issuer add spiffe://prod.example.com --audience tabard --jwks-uri https://spire.example.com/bundle", "SPIFFE: the trust domain's bundle",
			"tabard federation issuer add https://0123.tokens.sts.global.api.aws --audience tabard", "AWS: GetWebIdentityToken; each AWS account has an issuer of its own"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	var q api.CreateWorkloadIssuerRequest
	var keys string
	flags := cmd.Flags()
	flags.StringArrayVar(&q.Audiences, "audience", nil, "`audience` (aud) to accept; may be given again")
	flags.StringVar(&q.JWKSURI, "jwks-uri", "", "`URL` of the keys, or of the trust domain's bundle (default by discovery)")
	flags.StringVar(&keys, "jwks-file", "", "`file` with the keys, a JWK set, or with the trust domain's bundle")
	flags.BoolVar(&q.AllowOtherAudiences, "allow-other-audiences", false, "accept tokens that are for others too")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		q.Issuer = args[0]
		switch {
		case len(q.Audiences) == 0:
			return usage("usage: tabard federation issuer add ISSUER --audience NAME", "an issuer needs --audience")
		case q.JWKSURI != "" && keys != "":
			return usage("give one of them", "--jwks-uri and --jwks-file contradict each other")
		}
		if keys == "" {
			return nil
		}
		var err error
		q.JWKS, err = readJWKS(keys)
		return err
	}
	answering(cmd, t, f, func(ctx context.Context, c *client, _ []string) (api.WorkloadIssuer, error) {
		a, err := call[api.CreateWorkloadIssuerResponse](ctx, c, api.OpCreateWorkloadIssuer, q)
		return pointee(a.WorkloadIssuer), err
	}, workloadIssuerColumns())
	return cmd
}

func workloadIssuerColumns() []column[api.WorkloadIssuer] {
	type row = api.WorkloadIssuer
	return []column[row]{
		{name: "ISSUER", text: func(i row) string { return i.Issuer }},
		{name: "KIND", text: func(i row) string { return string(i.Kind) }},
		{name: "AUDIENCES", text: func(i row) string {
			if i.AllowOtherAudiences {
				return list(i.Audiences) + " and others"
			}
			return list(i.Audiences)
		}},
		{name: "KEYS", text: func(i row) string { return string(i.JWKSSource) }},
		{name: "TOKEN REVIEW", text: func(i row) string {
			if i.TokenReview {
				return "yes"
			}
			return "-"
		}},
		{name: "STATUS", text: func(i row) string { return string(i.Status) }, tint: func(i row) colour {
			if i.Status != api.StandingStatusActive {
				return red
			}
			return plain
		}},
	}
}

func listWorkloadIssuers(ctx context.Context, c *client) ([]api.WorkloadIssuer, error) {
	return allPages(func(token string) ([]api.WorkloadIssuer, string, error) {
		a, err := call[api.ListWorkloadIssuersResponse](ctx, c, api.OpListWorkloadIssuers, api.ListWorkloadIssuersRequest{NextToken: token})
		return a.WorkloadIssuers, a.NextToken, err
	})
}

func workloadIssuerList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the issuers of workloads' tokens", Args: exactly(),
		Example: examples("tabard federation issuer list", "for people", "tabard federation issuer list --output json", "for scripts, in the form of the API"),
	}
	listing(cmd, t, f, listWorkloadIssuers, workloadIssuerColumns())
	return cmd
}

func completeWorkloadIssuers(f *finder) cobra.CompletionFunc {
	return fromServer(f, func(ctx context.Context, c *client) ([]cobra.Completion, error) {
		issuers, err := listWorkloadIssuers(ctx, c)
		var names []cobra.Completion
		for _, i := range issuers {
			names = append(names, i.Issuer)
		}
		return names, err
	})
}

func workloadIssuerRemove(f *finder) *cobra.Command {
	return &cobra.Command{
		Use: "remove ISSUER", Short: "End the trust in an issuer, and its rules", Args: exactly("ISSUER"),
		Long: "Ends the trust in an issuer and deletes its rules. Its tokens, and the session credentials that they were exchanged for, are\n" +
			"refused within two seconds.",
		Example:           examples("tabard federation issuer remove spiffe://prod.example.com", "its tokens name nobody from now on"),
		ValidArgsFunction: completeWorkloadIssuers(f),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial(cmd.Context())
			if err != nil {
				return err
			}
			rules, err := listRules(cmd.Context(), c, api.ListFederationRulesRequest{Issuer: args[0]})
			if err != nil {
				return err
			}
			if _, err := call[api.DeleteWorkloadIssuerResponse](cmd.Context(), c, api.OpDeleteWorkloadIssuer, api.DeleteWorkloadIssuerRequest{Issuer: args[0]}); err != nil {
				return err
			}
			return say(cmd, "removed %s, and its rules: %d", args[0], len(rules))
		},
	}
}

func ruleAdd(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "add ISSUER SUBJECT PRINCIPAL", Short: "Let tokens stand for a principal", Args: exactly("ISSUER", "SUBJECT", "PRINCIPAL"),
		Long: "Lets the tokens of an issuer whose subject (sub) is SUBJECT, or fits it as a pattern (*), stand for a principal. Each --claim must be\n" +
			"there with exactly that value; '/' leads into an object. A name can be given to another workload later, a uid cannot.",
		Example: examples(
			"tabard federation rule add https://kubernetes.default.svc system:serviceaccount:prod:calendar calendar", "Kubernetes: a service account",
			"tabard federation rule add https://kubernetes.default.svc system:serviceaccount:prod:calendar calendar --claim kubernetes.io/serviceaccount/uid=7c6f1b9e-…",
			"the same, but not one that is created later under the same name",
			"tabard federation rule add https://token.actions.githubusercontent.com 'repo:acme/calendar:*' calendar --claim repository_id=123 --claim ref=refs/heads/main",
			"GitHub: a repository's main branch",
			"tabard federation rule add spiffe://prod.example.com spiffe://prod.example.com/ns/prod/sa/calendar calendar", "SPIFFE",
			"tabard federation rule add https://0123.tokens.sts.global.api.aws arn:aws:iam::111122223333:role/calendar calendar", "AWS: an IAM role"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, given string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return completeWorkloadIssuers(f)(cmd, args, given)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	var claims []string
	cmd.Flags().StringArrayVar(&claims, "claim", nil, "`name=value` that a token must have; may be given again")
	var q api.CreateFederationRuleRequest
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		q = api.CreateFederationRuleRequest{Issuer: args[0], Subject: args[1], PrincipalName: args[2]}
		var err error
		q.Claims, err = parseClaims(claims)
		return err
	}
	answering(cmd, t, f, func(ctx context.Context, c *client, _ []string) (api.FederationRule, error) {
		a, err := call[api.CreateFederationRuleResponse](ctx, c, api.OpCreateFederationRule, q)
		return pointee(a.Rule), err
	}, ruleColumns())
	return cmd
}

func ruleColumns() []column[api.FederationRule] {
	type row = api.FederationRule
	return []column[row]{
		{name: "RULE", text: func(r row) string { return r.RuleID }},
		{name: "ISSUER", text: func(r row) string { return r.Issuer }},
		{name: "SUBJECT", text: func(r row) string { return r.Subject }},
		{name: "CLAIMS", text: func(r row) string {
			var pairs []string
			for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
				pairs = append(pairs, name+"="+r.Claims[name])
			}
			return list(pairs)
		}},
		{name: "PRINCIPAL", text: func(r row) string { return r.PrincipalName }},
	}
}

func listRules(ctx context.Context, c *client, q api.ListFederationRulesRequest) ([]api.FederationRule, error) {
	return allPages(func(token string) ([]api.FederationRule, string, error) {
		q.NextToken = token
		a, err := call[api.ListFederationRulesResponse](ctx, c, api.OpListFederationRules, q)
		return a.Rules, a.NextToken, err
	})
}

func ruleList(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List the rules", Args: exactly(),
		Example: examples("tabard federation rule list", "all of them", "tabard federation rule list --principal calendar", "who may be calendar"),
	}
	var q api.ListFederationRulesRequest
	cmd.Flags().StringVar(&q.PrincipalName, "principal", "", "only rules that lead to this `principal`")
	cmd.Flags().StringVar(&q.Issuer, "issuer", "", "only rules of this `issuer`")
	listing(cmd, t, f, func(ctx context.Context, c *client) ([]api.FederationRule, error) { return listRules(ctx, c, q) }, ruleColumns())
	return cmd
}

func ruleRemove(f *finder) *cobra.Command {
	return &cobra.Command{
		Use: "remove RULE", Short: "Remove a rule", Args: exactly("RULE"),
		Long:    "Removes a rule. The session credentials that it gave are refused within two seconds.",
		Example: examples("tabard federation rule remove frl-4f6c2…", "as tabard federation rule list shows it"),
		ValidArgsFunction: fromServer(f, func(ctx context.Context, c *client) ([]cobra.Completion, error) {
			rules, err := listRules(ctx, c, api.ListFederationRulesRequest{})
			var ids []cobra.Completion
			for _, r := range rules {
				ids = append(ids, cobra.CompletionWithDesc(r.RuleID, r.Subject+" is "+r.PrincipalName))
			}
			return ids, err
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.dial(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := call[api.DeleteFederationRuleResponse](cmd.Context(), c, api.OpDeleteFederationRule, api.DeleteFederationRuleRequest{RuleID: args[0]}); err != nil {
				return err
			}
			return say(cmd, "removed %s", args[0])
		},
	}
}
