package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/internal/sidecar"
)

// sidecarFlags are what the command line says.
type sidecarFlags struct {
	sidecar.Config
	tokenFile, principal string
	exec, check          bool
}

func newSidecar(t terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sidecar --workload NAME [--exec -- COMMAND...]", Short: "Stand beside one agent, as AgentCore's Runtime does",
		Long: `Runs beside one agent, on this machine's loopback addresses only, and does what AgentCore's Runtime does at AWS.

In front (--addr) it takes the user's JWT from Authorization: Bearer, gets a workload access token for it, and passes the
request to the agent (--agent) with the headers WorkloadAccessToken, OAuth2CallbackUrl and the session's and the request's id.
What the client sent under these names, or under names that could be read as these, never arrives. GET /ping needs no user.
By itself app.run() of BedrockAgentCoreApp listens where --agent is; its clients go to --addr instead.

Behind (--identity-addr) it takes the identity calls of the agent's SDK, whatever AWS key signed them, and sends them to Tabard
with its own credentials: the token that the platform gives its pod (--token-file), or an access key in AWS's variables. So
an agent for BedrockAgentCoreApp runs unmodified, and its other AWS clients keep their real credentials. An SDK signs before
it sends: an agent that has no AWS credentials at all needs made-up ones.

At the start it prints what the agent's environment needs. With --exec it starts the agent itself, with that environment, and
ends with it and with its exit code. GET /healthz and GET /readyz on the identity address are for probes; --check asks
the second, for probes that run a command.`,
		Example: examples(
			"tabard sidecar --workload calendar-agent --token-file /var/run/secrets/tabard/token --endpoint https://tabard.example.com", "beside an agent whose app.run() listens on 127.0.0.1:8080",
			"tabard sidecar --workload calendar-agent --exec -- python agent.py", "start the agent too",
			"tabard sidecar --workload calendar-agent --callback-url https://app.example.com/connected --allow-anonymous", "a return page; requests without a user too",
			"tabard sidecar --check", "is the sidecar of this machine ready?"),
	}
	var f finder
	f.addFlags(cmd, t)
	var s sidecarFlags
	s.addFlags(cmd)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if dash := cmd.ArgsLenAtDash(); s.exec && (len(args) == 0 || dash != 0) || !s.exec && len(args) > 0 {
			return usage("for example: tabard sidecar --workload calendar-agent --exec -- python agent.py", "--exec, and only that, takes the agent's command after --")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if s.check {
			return checkSidecar(cmd.Context(), s.IdentityAddr)
		}
		return s.run(cmd.Context(), t, &f, args)
	}
	return cmd
}

func (s *sidecarFlags) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.Workload, "workload", "", "`name` of the agent's workload identity")
	flags.StringVar(&s.Addr, "addr", sidecar.DefaultAddr, "loopback `address` where the agent's clients come")
	flags.StringVar(&s.Agent, "agent", sidecar.DefaultAgent, "`URL` of the agent, on loopback")
	flags.StringVar(&s.IdentityAddr, "identity-addr", sidecar.DefaultIdentityAddr, "loopback `address` where the agent's identity calls come")
	flags.StringVar(&s.CallbackURL, "callback-url", "", "`URL` of the page where users' browsers go after consent, registered with the workload identity")
	flags.StringVar(&s.tokenFile, "token-file", "", "`file` of the token that stands for the sidecar at Tabard, read for each call")
	flags.StringVar(&s.principal, "principal", "", "principal that is meant, where the token may stand for several: its `name` or role ARN")
	flags.BoolVar(&s.AllowAnonymous, "allow-anonymous", false, "requests without a JWT get a token of the agent without a user, except a browser's")
	flags.BoolVar(&s.ForwardAuthorization, "forward-authorization", false, "pass the user's JWT to the agent too")
	flags.BoolVar(&s.AllowClearText, "allow-clear-text", false, "reach Tabard on another machine without TLS: where something else encrypts the way")
	flags.BoolVar(&s.exec, "exec", false, "run the command after -- as the agent")
	flags.BoolVar(&s.check, "check", false, "ask the sidecar at --identity-addr whether it is ready, and end")
}

func (s *sidecarFlags) run(ctx context.Context, t terminal, f *finder, agent []string) error {
	if s.Workload == "" {
		return usage("tabard workload list shows the names", "tabard sidecar needs --workload NAME")
	}
	where, err := f.find()
	if err != nil {
		return err
	}
	s.Endpoint, s.Log = where.url, slog.New(slog.NewJSONHandler(t.err, nil))
	if s.Credentials, err = s.credentials(ctx, f, where); err != nil {
		return err
	}
	beside, err := sidecar.New(ctx, s.Config)
	if err != nil {
		return sidecarFailure(err)
	}
	defer beside.Close()
	vars, err := agentVariables(f, beside.IdentityURL(), where.region)
	if err != nil {
		return err
	}
	if err := s.announce(t.out, beside, vars); err != nil {
		return err
	}
	if !s.exec {
		return beside.Run(ctx)
	}
	return runAgent(ctx, t, beside, agent, vars)
}

// credentials are the token in a file or, without one, what AWS's variables and files have.
func (s *sidecarFlags) credentials(ctx context.Context, f *finder, where location) (sidecar.Credentials, error) {
	if s.tokenFile != "" {
		if _, err := os.Stat(s.tokenFile); err != nil {
			return nil, &failure{exit: exitUsage, err: err, msg: "--token-file: " + oneLine(err.Error()), hints: []string{"docs/sidecar.md shows how a pod gets its token"}}
		}
		return sidecar.TokenFile(s.tokenFile, s.principal), nil
	}
	if s.principal != "" {
		return nil, usage("an access key has one principal", "--principal goes with --token-file")
	}
	key, err := f.credentials(ctx, where) // a sentence for whoever has none
	if err != nil {
		return nil, err
	}
	static := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return key, nil })
	if !key.CanExpire {
		return sidecar.AccessKey(static, where.region), nil
	}
	c, err := config.LoadDefaultConfig(ctx, config.WithRegion(where.region), config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	if err != nil {
		return nil, err
	}
	return sidecar.AccessKey(c.Credentials, where.region), nil
}

// sidecarFailure names the flag for what a member of sidecar.Config is called.
func sidecarFailure(err error) error {
	if wrong, ok := errors.AsType[*sidecar.SettingError](err); ok {
		flag := map[string]string{"Addr": "--addr", "IdentityAddr": "--identity-addr", "Agent": "--agent", "Endpoint": "--endpoint", "CallbackURL": "--callback-url",
			"Workload": "--workload"}[wrong.Setting]
		f := &failure{exit: exitUsage, err: err, msg: flag + ": " + oneLine(wrong.Problem)}
		if flag == "--endpoint" && strings.Contains(wrong.Problem, "in clear") {
			f.hints = []string{"use https, or --allow-clear-text where something else encrypts the way"}
		}
		return f
	}
	f := &failure{exit: exitFailed, err: err, msg: oneLine(err.Error())}
	if errors.Is(err, syscall.EADDRINUSE) {
		f.hints = []string{"something listens there already: give another --addr or --identity-addr; port 0 takes a free one"}
	}
	return f
}

// agentVariables are those of tabard env, with the sidecar in the place of the server. The agent's own region stays:
// its other AWS clients need it, and nobody checks it here.
func agentVariables(f *finder, identityURL, region string) ([]variable, error) {
	vars, err := f.variables(location{url: identityURL, region: region})
	if err != nil {
		return nil, err
	}
	vars = slices.DeleteFunc(vars, func(v variable) bool { return isRegion(v.name) && regionInFile(f) })
	for i, v := range vars {
		if isRegion(v.name) {
			vars[i].value = cmp.Or(f.env(v.name), f.env("AWS_REGION"), f.env("AWS_DEFAULT_REGION"), region)
		}
	}
	if f.env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") != "" { // it would send the calls to AWS, with the users' tokens
		vars = append(vars, variable{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false"})
	}
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} { // boto3 would go to loopback through it
		if f.env(name) != "" {
			return append(vars, noProxy(f, "NO_PROXY"), noProxy(f, "no_proxy")), nil
		}
	}
	return vars, nil
}

func isRegion(name string) bool { return name == "AWS_REGION" || name == "AWS_DEFAULT_REGION" }

// regionInFile reports whether a file of AWS's may say the region, which a variable would overrule.
func regionInFile(f *finder) bool {
	if f.env("AWS_REGION") != "" || f.env("AWS_DEFAULT_REGION") != "" {
		return false
	}
	home, err := os.UserHomeDir()
	return f.env("AWS_PROFILE") != "" || f.env("AWS_CONFIG_FILE") != "" || err == nil && exists(filepath.Join(home, ".aws", "config"))
}

func noProxy(f *finder, name string) variable {
	list := "127.0.0.1,localhost,::1"
	if old := f.env(name); old != "" {
		list = old + "," + list
	}
	return variable{name, list}
}

// announce prints where it listens and what the agent needs, in lines that a shell takes.
func (s *sidecarFlags) announce(w io.Writer, beside *sidecar.Sidecar, vars []variable) error {
	if _, err := fmt.Fprintf(w, "# tabard sidecar of %s, for Tabard at %s\n# the agent's clients go to %s, which passes their requests to %s\n# the agent's environment needs:\n",
		s.Workload, s.Endpoint, beside.URL(), s.Agent); err != nil {
		return err
	}
	return printVariables(w, "sh", vars)
}

// checkSidecar asks a running sidecar whether it is ready.
func checkSidecar(ctx context.Context, addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || !isLoopback(host) {
		return usage("for example 127.0.0.1:8081", "--identity-addr is no loopback address with a port")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return &failure{exit: exitUnavailable, err: err, msg: "no sidecar answers at " + addr}
	}
	_ = resp.Body.Close() // the status says it all
	if resp.StatusCode != http.StatusOK {
		return &failure{exit: exitUnavailable, msg: fmt.Sprintf("the sidecar at %s is not ready: its log says why", addr)}
	}
	return nil
}
