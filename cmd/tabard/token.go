package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
)

func newToken(t terminal) *cobra.Command {
	cmd := group("token", "Tokens: get one as an agent does", "Gets a provider's token as an agent does, with all that belongs to it: to try a provider out, and for scripts.")
	cmd.Example = examples("tabard token get google-calendar --workload calendar-agent --user-id alice --scope https://www.googleapis.com/auth/calendar.events --open", "through the consent, in the browser")
	var f finder
	f.addFlags(cmd, t)
	cmd.AddCommand(tokenGet(t, &f), tokenExchange(t, &f))
	return cmd
}

// tokenRequest is one run of tabard token get.
type tokenRequest struct {
	t        terminal
	cmd      *cobra.Command
	need     tabard.OAuth2
	workload string
	userID   string
	jwt      hidden
	machine  bool
	open     bool
	noWait   bool
	show     bool
	out      output
	user     tabard.User
}

func tokenGet(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "get PROVIDER", Short: "Get a provider's token", Args: exactly("PROVIDER"), ValidArgsFunction: providerNames(f),
		Long: `Gets a token of a provider, for an agent and a user, and prints what it is, not the token; --show prints the bare token.

Where the user has to consent first, it prints an address to open in a browser on this machine, waits, and completes the
consent for the same user, which takes an access key with the roles agent and consent-app, or root. The browser comes back to a
port of this machine: a free one, which only a server with --dev allows, or that of --return-url, registered with the
workload identity. A --return-url elsewhere is left to the web application behind it. --no-wait ends with exit code 3 instead.`,
		Example: examples(
			"tabard token get google-calendar --workload calendar-agent --user-id alice --scope https://www.googleapis.com/auth/calendar.events --open", "opens the browser where alice has to consent",
			"tabard token get google-calendar --workload calendar-agent --user-token-file alice.jwt --return-url http://127.0.0.1:8976/connected", "a user by their own token; the return URL is registered",
			"curl -H \"Authorization: Bearer $(tabard token get tracker --workload sync --machine --show)\" https://tracker.example.com/", "the agent itself, in a script"),
	}
	r := &tokenRequest{t: t, cmd: cmd, jwt: hidden{what: "user's token", flag: "user-token-file"}}
	flags := cmd.Flags()
	flags.StringVar(&r.workload, "workload", "", "workload identity to act as, by `name`")
	flags.StringVar(&r.userID, "user-id", "", "`id` of the user, asserted by you")
	r.jwt.addFlag(cmd, t)
	flags.BoolVar(&r.machine, "machine", false, "the agent itself, with no user behind it (M2M)")
	flags.StringArrayVar(&r.need.Scopes, "scope", nil, "`scope` to ask for; may be given again")
	flags.StringToStringVar(&r.need.CustomParameters, "param", nil, "`name=value` for the provider's authorization page, such as access_type=offline; may be given again")
	flags.StringVar(&r.need.ReturnURL, "return-url", "", "`URL` where the browser goes after consent (default a free port of this machine)")
	flags.BoolVar(&r.open, "open", false, "open the browser, where this is a terminal")
	flags.BoolVar(&r.noWait, "no-wait", false, "do not wait for a consent: exit code 3 where one is needed")
	flags.BoolVar(&r.show, "show", false, "print the token and nothing else on standard output")
	r.out.addFlag(cmd, t)
	complete(cmd, "workload", inFlag(workloadNames(f)))
	complete(cmd, "user-id", cobra.NoFileCompletions)
	complete(cmd, "scope", cobra.NoFileCompletions)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r.need.Provider = args[0]
		if err := r.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		err = r.run(cmd.Context(), c)
		if err != nil && slices.ContainsFunc(r.need.Scopes, func(s string) bool { return strings.ContainsAny(s, ", ") }) {
			return hinted(err, "give --scope again for each scope, if you meant several: it takes one")
		}
		return err
	}
	return cmd
}

func (r *tokenRequest) check() error {
	kinds := 0
	for _, given := range []bool{r.userID != "", r.jwt.given(), r.machine} {
		if given {
			kinds++
		}
	}
	switch {
	case r.workload == "":
		return usage("usage: "+r.cmd.UseLine()+" --workload NAME", "a token is for an agent: --workload is missing")
	case kinds != 1:
		return usage("for example --user-id alice", "give one of --user-id, --user-token-file and --machine")
	case r.machine && (r.need.ReturnURL != "" || r.open || r.noWait):
		given := "--return-url"
		switch {
		case r.noWait:
			given = "--no-wait"
		case r.open:
			given = "--open"
		}
		return usage("only a user consents", "--machine and %s contradict each other", given)
	case r.noWait && r.open:
		return usage("--open waits for the browser", "--open and --no-wait contradict each other")
	case r.show && r.out.format == "json":
		return usage("--show prints the bare token", "--show and --output json contradict each other")
	}
	return r.out.check()
}

// as puts the user into ctx.
func (r *tokenRequest) as(ctx context.Context) (context.Context, error) {
	switch {
	case r.machine:
		r.need.Flow = tabard.M2M
		return ctx, nil
	case r.userID != "":
		r.user = tabard.UserID(r.userID)
		return tabard.WithUserID(ctx, r.userID), nil
	}
	jwt, err := r.jwt.read(r.cmd)
	if err != nil {
		return nil, err
	}
	r.user = tabard.UserToken(jwt.Expose())
	return tabard.WithUserToken(ctx, jwt.Expose()), nil
}

const lookEvery = time.Second // at a consent that is under way

func (r *tokenRequest) run(ctx context.Context, c *client) error {
	ctx, err := r.as(ctx)
	if err != nil {
		return err
	}
	agent, err := tabard.New(ctx, tabard.Config{Workload: r.workload, Endpoint: c.url, PollInterval: lookEvery, AWS: &aws.Config{Region: c.region,
		Credentials: credentials.StaticCredentialsProvider{Value: c.credentials}, HTTPClient: c.http}})
	if err != nil {
		return asTokenFailure(err)
	}
	var page *returnPage
	if !r.machine && !r.noWait {
		if page, err = listenForReturn(r.need.ReturnURL); err != nil {
			return err
		}
		if page != nil {
			defer page.close()
			r.need.ReturnURL = page.returnURL()
		}
	}
	token, err := agent.Token(ctx, r.need)
	if required, ok := errors.AsType[*tabard.ConsentRequiredError](err); ok {
		token, err = r.consent(ctx, agent, page, required.Consent)
	}
	if err != nil {
		return asTokenFailure(err)
	}
	return r.print(token)
}

// consent sees a missing consent through.
func (r *tokenRequest) consent(ctx context.Context, agent *tabard.Client, page *returnPage, consent tabard.Consent) (*tabard.Token, error) {
	stderr := r.cmd.ErrOrStderr()
	if r.noWait {
		return nil, &failure{exit: exitConsent, msg: r.need.Provider + ": the user has to consent first", hints: []string{"have the user open " + oneLine(consent.URL)}}
	}
	address := consent.URL
	if page != nil {
		var stop context.CancelCauseFunc
		ctx, stop = context.WithCancelCause(ctx)
		defer stop(nil)
		page.serve(consent, agent.CompleteHandler(
			func(*http.Request, string) (tabard.User, error) { return r.user, nil },
			func(w http.ResponseWriter, _ *http.Request, err error) {
				sayInBrowser(w, err)
				if err != nil {
					stop(err)
				}
			}))
		address = page.startURL()
	}
	fmt.Fprintf(stderr, "%s: consent is needed. Open this address in a browser", oneLine(r.need.Provider))
	if page != nil {
		fmt.Fprint(stderr, " on this machine")
	}
	fmt.Fprintf(stderr, ":\n%s\n", oneLine(address))
	if f, ok := r.t.err.(*os.File); r.open && ok && term.IsTerminal(int(f.Fd())) {
		if err := openBrowser(address); err != nil {
			fmt.Fprintf(stderr, "the browser did not open: %s\n", oneLine(err.Error()))
		}
	}
	return agent.Wait(ctx, r.need, consent)
}

// tokenView is what is said of a token.
type tokenView struct {
	Provider        string        `json:"provider"`
	Flow            tabard.Flow   `json:"flow"`
	TokenType       string        `json:"tokenType"`
	ExpiresAt       api.Timestamp `json:"expiresAt,omitzero"`
	GrantedScopes   []string      `json:"grantedScopes,omitzero"`
	ConnectionID    string        `json:"connectionId,omitempty"`
	ConnectionState string        `json:"connectionState,omitempty"`
	Fingerprint     string        `json:"fingerprint"`
}

func (r *tokenRequest) print(token *tabard.Token) error {
	if r.show {
		_, err := fmt.Fprintln(r.cmd.OutOrStdout(), token.AccessToken)
		return err
	}
	v := tokenView{r.need.Provider, cmp.Or(r.need.Flow, tabard.UserFederation), token.Type, api.At(token.Expiry), token.Scopes,
		token.ConnectionID, token.ConnectionState, secret.New(token.AccessToken).Fingerprint()}
	return show(r.cmd, r.out, []tokenView{v}, []column[tokenView]{
		{name: "PROVIDER", text: func(v tokenView) string { return v.Provider }},
		{name: "FLOW", text: func(v tokenView) string { return string(v.Flow) }},
		{name: "TYPE", text: func(v tokenView) string { return v.TokenType }},
		{name: "EXPIRES", text: func(v tokenView) string { return when(v.ExpiresAt) }},
		{name: "SCOPES", text: func(v tokenView) string { return list(v.GrantedScopes) }},
		{name: "CONNECTION", text: func(v tokenView) string { return cmp.Or(v.ConnectionID, "-") }},
		{name: "FINGERPRINT", text: func(v tokenView) string { return v.Fingerprint }},
	})
}

// asTokenFailure gives the SDK's errors the exit codes of the command line.
func asTokenFailure(err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	e, ok := errors.AsType[*tabard.Error](err)
	if !ok {
		return &failure{exit: exitFailed, msg: oneLine(strings.TrimPrefix(err.Error(), "tabard: ")), err: err}
	}
	f := &failure{exit: exitFailed, msg: cmp.Or(e.Message, string(e.Code)), err: err}
	switch e.Code {
	case tabard.ErrConsentFailed, tabard.ErrConsentExpired:
		f.exit, f.hints = exitConsent, []string{"run it again to ask the user again"}
		return f
	case tabard.ErrInvalid:
		f.exit = exitUsage
	case tabard.ErrUnavailable, tabard.ErrThrottled:
		f.exit = exitUnavailable
	}
	if e.Exception != "" {
		f = (&apiError{status: e.HTTPStatus, exception: e.Exception, message: e.Message, requestID: e.RequestID}).failure()
	}
	switch {
	case e.Code == tabard.ErrInvalid && mentionsReturnURL(e.Message):
		f.hints = append(f.hints, "without --dev a server takes registered return URLs only: tabard workload return-url add NAME http://127.0.0.1:8976/connected, and --return-url with the same here")
	case e.Code == tabard.ErrDenied && e.Op == opComplete:
		f.hints = append(f.hints, "to complete a consent, the access key's principal needs the role consent-app (or root) for the workload identity, beside agent")
	}
	return f
}
