package tabard_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"

	"github.com/tabard-id/tabard"
)

func TestNewChecksItsConfig(t *testing.T) {
	conf := awsConfig()
	api := bedrockagentcore.NewFromConfig(conf)
	noRegion := aws.Config{}
	for _, tc := range []struct {
		cfg  tabard.Config
		want string
	}{
		{tabard.Config{AWS: &conf, Workload: "a b"}, `Config.Workload "a b"`},
		{tabard.Config{AWS: &conf, Endpoint: "127.0.0.1:8180"}, "Config.Endpoint"},
		{tabard.Config{AWS: &conf, ReturnURL: "/connected"}, "Config.ReturnURL"},
		{tabard.Config{AWS: &conf, PollInterval: -1}, "Config.PollInterval"},
		{tabard.Config{AWS: &conf, API: api}, "Config.API"},
		{tabard.Config{API: api, Endpoint: "http://127.0.0.1:8180"}, "Config.API"},
		{tabard.Config{AWS: &noRegion}, "no AWS region"},
	} {
		_, err := tabard.New(t.Context(), tc.cfg)
		if !errors.Is(err, tabard.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}

// TestNewFromTheEnvironment is how an agent in production starts: nothing but AWS's own variables.
func TestNewFromTheEnvironment(t *testing.T) {
	f := newFake()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	none := t.TempDir() + "/none"
	for name, value := range map[string]string{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIATEST",
		"AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE": srv.URL, "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none} {
		t.Setenv(name, value)
	}
	c, err := tabard.New(t.Context(), tabard.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Token(tabard.WithWorkloadAccessToken(t.Context(), "wat"), calendarNeed()); err != nil {
		t.Errorf("with a token from the runtime: %v", err)
	}
	if _, has := f.seen(opToken)[0]["resourceOauth2ReturnUrl"]; has {
		t.Error("a return URL is sent that nobody named")
	}
	if _, err := c.Token(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed()); !errors.Is(err, tabard.ErrInvalid) {
		t.Errorf("minting without a workload: %v, want ErrInvalid", err)
	}
}

func TestNewWithAReadyClient(t *testing.T) {
	f := newFake()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	api := bedrockagentcore.NewFromConfig(awsConfig(), func(o *bedrockagentcore.Options) { o.BaseEndpoint = aws.String(srv.URL) })
	c, err := tabard.New(t.Context(), tabard.Config{Workload: "calendar-agent", API: api})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := c.Token(tabard.WithUserToken(t.Context(), "a.b.c"), calendarNeed())
	if err != nil || tok.Expiry.IsZero() {
		t.Errorf("got %v; the extra members are read from any client", err)
	}
	if c.Workload() != "calendar-agent" {
		t.Errorf("workload %q", c.Workload())
	}
}
