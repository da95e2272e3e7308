package tabardtest_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/tabardtest"
)

// TestNewServesBothPlanes creates a workload identity with AWS's control-plane client and asks for a machine token with
// the SDK, against one server.
func TestNewServesBothPlanes(t *testing.T) {
	server := tabardtest.New(t)
	config := server.AWSConfig()
	control := bedrockagentcorecontrol.NewFromConfig(config)
	made, err := control.CreateWorkloadIdentity(t.Context(), &bedrockagentcorecontrol.CreateWorkloadIdentityInput{Name: aws.String("my-agent")})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := aws.ToString(made.WorkloadIdentityArn), "arn:aws:bedrock-agentcore:us-east-1:000000000000:workload-identity-directory/default/workload-identity/my-agent"; got != want {
		t.Errorf("ARN: got %s, want %s", got, want)
	}
	client, err := tabard.New(t.Context(), tabard.Config{Workload: "my-agent", AWS: &config})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Token(t.Context(), tabard.OAuth2{Provider: "nobody", Flow: tabard.M2M})
	if !errors.Is(err, tabard.ErrNotFound) {
		t.Errorf("token of an unknown provider: got %v, want %v", err, tabard.ErrNotFound)
	}
}

// TestAgentConfigHasTheNamedProviders gets an API key with an agent's own access key, and is refused another.
func TestAgentConfigHasTheNamedProviders(t *testing.T) {
	server := tabardtest.New(t)
	control := bedrockagentcorecontrol.NewFromConfig(server.AWSConfig())
	if _, err := control.CreateWorkloadIdentity(t.Context(), &bedrockagentcorecontrol.CreateWorkloadIdentityInput{Name: aws.String("my-agent")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"weather", "maps"} {
		key := &bedrockagentcorecontrol.CreateApiKeyCredentialProviderInput{Name: &name, ApiKey: aws.String("key of " + name)}
		if _, err := control.CreateApiKeyCredentialProvider(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	config := server.AgentConfig(t, "my-agent", "weather")
	client, err := tabard.New(t.Context(), tabard.Config{Workload: "my-agent", AWS: &config})
	if err != nil {
		t.Fatal(err)
	}
	key, err := client.APIKey(t.Context(), "weather")
	if err != nil || key.Value() != "key of weather" {
		t.Errorf("the allowed key: got %v", err)
	}
	if _, err := client.APIKey(t.Context(), "maps"); !errors.Is(err, tabard.ErrDenied) {
		t.Errorf("another key: got %v, want %v", err, tabard.ErrDenied)
	}
}
