package tabard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
)

// Config says who the agent is and how it reaches the service. The zero Config takes everything from AWS's
// environment variables and shared files, and serves an agent whose workload access tokens come with its requests (as
// in AgentCore Runtime, with TrustsPeer, or behind a sidecar).
type Config struct {
	// Workload is the name of the agent's workload identity: 3 to 255 of A-Z a-z 0-9 _ . -. It is needed to mint
	// workload access tokens, that is for WithUserToken, WithUserID, M2M without a user, and API keys.
	Workload string

	// Endpoint is the address of the service, such as http://127.0.0.1:8180. Empty: AWS's own rules, first of them the
	// variable AWS_ENDPOINT_URL_BEDROCK_AGENTCORE, last the public service of the region.
	Endpoint string

	// AWS has region, credentials and retry rules. Nil: config.LoadDefaultConfig. Not with API.
	AWS *aws.Config

	// API is a ready data-plane client, for what AWS cannot say. Not with AWS or Endpoint.
	API *bedrockagentcore.Client

	// ReturnURL is where the user's browser goes after consent, when neither the declaration nor the context names
	// one. It must be registered with the workload identity.
	ReturnURL string

	// OnConsent is told when a user has to consent; the call then waits until that is done. Nil: the call returns
	// *ConsentRequiredError. WithConsentHandler sets one for a single context.
	OnConsent ConsentHandler

	// TrustsPeer says whether who sent a request was authenticated where Middleware cannot see it: by a service mesh, by a
	// proxy that removes the headers of everybody else, or by a runtime in whose network nobody else is, such as AgentCore
	// Runtime. Middleware takes workload access tokens from those too. Nil: from nobody else.
	TrustsPeer func(*http.Request) bool

	// PollInterval is the pause between two looks at an open consent session. Zero: 2 seconds.
	PollInterval time.Duration

	// Now is the clock, for tests. Nil: time.Now.
	Now func() time.Time
}

// Client gets credentials for one agent. It is safe for concurrent use; make one and keep it.
type Client struct {
	workload  string
	api       *bedrockagentcore.Client
	returnURL string
	onConsent ConsentHandler
	trusts    func(*http.Request) bool
	poll      time.Duration
	now       func() time.Time
	wats      *watCache
	plans     planCache
	prompts   prompts
}

// New checks cfg and returns a client. It reads AWS's configuration and does not contact the service. Errors are
// *Error with ErrInvalid and name the field at fault.
func New(ctx context.Context, cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Client{
		workload:  cfg.Workload,
		api:       cfg.API,
		returnURL: cfg.ReturnURL,
		onConsent: cfg.OnConsent,
		trusts:    cfg.TrustsPeer,
		poll:      cfg.PollInterval,
		now:       cfg.Now,
		wats:      newWATCache(maxWATs),
	}
	if c.poll == 0 {
		c.poll = 2 * time.Second
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.api == nil {
		conf, err := cfg.awsConfig(ctx)
		if err != nil {
			return nil, err
		}
		c.api = bedrockagentcore.NewFromConfig(conf)
	}
	if c.api.Options().Region == "" {
		return nil, invalid("no AWS region: set AWS_REGION (`tabard env` prints it) or Config.AWS.Region")
	}
	return c, nil
}

func (cfg Config) check() error {
	if cfg.Workload != "" && !plain(cfg.Workload, 3, 255, "_.-") {
		return invalid("Config.Workload %q must be 3 to 255 of A-Z a-z 0-9 _ . -", cfg.Workload)
	}
	if cfg.API != nil && (cfg.AWS != nil || cfg.Endpoint != "") {
		return invalid("Config.API excludes Config.AWS and Config.Endpoint: the client has both already")
	}
	if cfg.Endpoint != "" {
		if u, err := url.Parse(cfg.Endpoint); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return invalid("Config.Endpoint must be an http or https URL")
		}
	}
	if cfg.ReturnURL != "" {
		if u, err := url.Parse(cfg.ReturnURL); err != nil || u.Scheme == "" {
			return invalid("Config.ReturnURL %q must be an absolute URL", cfg.ReturnURL)
		}
	}
	if cfg.PollInterval < 0 {
		return invalid("Config.PollInterval %s must not be negative", cfg.PollInterval)
	}
	return nil
}

func (cfg Config) awsConfig(ctx context.Context) (aws.Config, error) {
	var conf aws.Config
	if cfg.AWS != nil {
		conf = cfg.AWS.Copy()
	} else {
		var err error
		if conf, err = awsconfig.LoadDefaultConfig(ctx); err != nil {
			return aws.Config{}, &Error{Code: ErrInvalid, Message: "AWS configuration cannot be loaded", Err: err}
		}
	}
	if cfg.Endpoint != "" {
		conf.BaseEndpoint = aws.String(cfg.Endpoint)
	}
	return conf, nil
}

// Workload returns the name of the agent's workload identity, empty if it has none of its own.
func (c *Client) Workload() string { return c.workload }

// Format prints the client's workload under every verb, and nothing of what it holds.
func (c *Client) Format(s fmt.State, _ rune) {
	if c == nil {
		_, _ = io.WriteString(s, "tabard.Client(nil)")
		return
	}
	_, _ = fmt.Fprintf(s, "tabard.Client(%s)", c.workload)
}

// LogValue is the client in log/slog.
func (c *Client) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// MarshalJSON always fails: a client holds credentials.
func (c *Client) MarshalJSON() ([]byte, error) {
	return nil, errors.New("tabard: a Client does not marshal")
}
