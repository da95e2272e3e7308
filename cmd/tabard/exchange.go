package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
)

const workloadTokenType = "urn:tabard:params:oauth:token-type:workload-access-token"

// exchangeRequest is one run of tabard token exchange.
type exchangeRequest struct {
	cmd      *cobra.Command
	audience string
	workload string
	scopes   []string
	wat      hidden
	show     bool
	out      output
}

func tokenExchange(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "exchange", Short: "Exchange a workload access token for one that others can verify", Args: exactly(),
		Long: `Exchanges an agent's workload access token (RFC 8693), and prints what came of it, not the token; --show prints the bare token.

With --audience it becomes a signed JWT (at+jwt) for one service, which verifies it with the keys that the server publishes
under /.well-known/openid-configuration. The JWT lives ten minutes at most. It names the user by a subject that only this
service gets, and the agents that the request came through. It has those of the scopes that a policy allows.

With --workload it becomes the workload access token of another agent, which the first one has called. A policy of that agent
has to name the first one: tabard allow OTHER --from FIRST.`,
		Example: examples(
			"tabard token exchange --audience https://reports.example.com --scope reports:read --token-file agent.wat", "for a service of your own",
			"curl -H \"Authorization: Bearer $(tabard token exchange --audience reports --token-file - --show < agent.wat)\" https://reports.example.com/", "in a script",
			"tabard token exchange --workload booking-agent --token-file planner.wat --show > booking.wat", "as the agent that was called"),
	}
	r := &exchangeRequest{cmd: cmd, wat: hidden{what: "workload access token", flag: "token-file"}}
	flags := cmd.Flags()
	flags.StringVar(&r.audience, "audience", "", "`name or URL` of the service that the token is for")
	flags.StringVar(&r.workload, "workload", "", "workload identity that the token is to be of, by `name`")
	flags.StringArrayVar(&r.scopes, "scope", nil, "`scope` to ask for; may be given again")
	r.wat.addFlag(cmd, t)
	flags.BoolVar(&r.show, "show", false, "print the token and nothing else on standard output")
	r.out.addFlag(cmd, t)
	complete(cmd, "audience", cobra.NoFileCompletions)
	complete(cmd, "workload", inFlag(workloadNames(f)))
	complete(cmd, "scope", cobra.NoFileCompletions)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := r.check(); err != nil {
			return err
		}
		wat, err := r.wat.read(cmd)
		if err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		return r.run(cmd.Context(), c, wat)
	}
	return cmd
}

func (r *exchangeRequest) check() error {
	switch {
	case (r.audience == "") == (r.workload == ""):
		return usage("for example --audience https://reports.example.com", "give one of --audience and --workload")
	case r.workload != "" && len(r.scopes) > 0:
		return usage("scopes are for --audience", "a workload access token has no scopes")
	case r.show && r.out.format == "json":
		return usage("--show prints the bare token", "--show and --output json contradict each other")
	}
	return r.out.check()
}

// exchangeView is what is said of an exchanged token.
type exchangeView struct {
	Audience    string        `json:"audience"`
	Type        string        `json:"issuedTokenType"`
	ExpiresAt   api.Timestamp `json:"expiresAt"`
	Scopes      []string      `json:"scopes"`
	Fingerprint string        `json:"fingerprint"`
}

func (r *exchangeRequest) run(ctx context.Context, c *client, wat secret.Text) error {
	form := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {wat.Expose()}, "subject_token_type": {workloadTokenType},
		"audience": {cmp.Or(r.audience, r.workload)},
	}
	if r.workload != "" {
		form.Set("requested_token_type", workloadTokenType)
	}
	if len(r.scopes) > 0 {
		form.Set("scope", strings.Join(r.scopes, " "))
	}
	asked := time.Now()
	doc, err := c.sendAs(ctx, http.MethodPost, "/oauth2/token", "application/x-www-form-urlencoded", []byte(form.Encode()))
	if err != nil {
		return err
	}
	var got struct {
		Token   string `json:"access_token"`
		Type    string `json:"issued_token_type"`
		Seconds int64  `json:"expires_in"`
		Scope   string `json:"scope"`
	}
	if err := json.Unmarshal(doc, &got); err != nil || got.Token == "" {
		return fmt.Errorf("the server's answer cannot be read: is %s a Tabard server?", c.url)
	}
	if r.show {
		_, err := fmt.Fprintln(r.cmd.OutOrStdout(), got.Token)
		return err
	}
	v := exchangeView{form.Get("audience"), got.Type, api.At(asked.Add(time.Duration(got.Seconds) * time.Second).Truncate(time.Second)),
		strings.Fields(got.Scope), secret.New(got.Token).Fingerprint()}
	return show(r.cmd, r.out, []exchangeView{v}, []column[exchangeView]{
		{name: "FOR", text: func(v exchangeView) string { return v.Audience }},
		{name: "TYPE", text: func(v exchangeView) string { return v.Type[strings.LastIndexByte(v.Type, ':')+1:] }},
		{name: "EXPIRES", text: func(v exchangeView) string { return when(v.ExpiresAt) }},
		{name: "SCOPES", text: func(v exchangeView) string { return list(v.Scopes) }},
		{name: "FINGERPRINT", text: func(v exchangeView) string { return v.Fingerprint }},
	})
}
