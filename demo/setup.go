package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol/types"
	"google.golang.org/api/calendar/v3"

	"github.com/tabard-id/tabard/internal/daemon"
)

// The names of what an administrator creates once.
const (
	agentName    = "calendar-agent"  // workload identity, and the principal that acts as it
	otherName    = "other-agent"     // another team's agent
	webName      = "web-app"         // principal of the web app, and its client id at the identity provider
	auditorName  = "trail"           // principal that reads the audit records
	providerName = "google-calendar" // credential provider
	clientName   = "tabard-demo"     // client id at the calendar provider that stands in for Google
)

// keys are the access keys of the demo's principals. Each part of the demo gets its own and no other.
type keys struct{ agent, other, web, auditor aws.CredentialsProvider }

// admin does what an administrator does before the first user comes, with the root access key.
type admin struct {
	operator *operator
	control  *bedrockagentcorecontrol.Client
}

// newAdmin reads the root access key that the server wrote into its data directory.
func newAdmin(ctx context.Context, endpoint, dataDir string, client *http.Client) (*admin, error) {
	shared, err := config.LoadSharedConfigProfile(ctx, daemon.Profile, func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{daemon.CredentialsPath(dataDir)}, []string{}
	})
	if err != nil {
		return nil, err
	}
	root := credentials.StaticCredentialsProvider{Value: shared.Credentials}
	return &admin{
		operator: &operator{endpoint: endpoint, region: daemon.DefaultRegion, credentials: root, client: client},
		control: bedrockagentcorecontrol.New(bedrockagentcorecontrol.Options{
			BaseEndpoint: aws.String(endpoint), Region: daemon.DefaultRegion, Credentials: root, HTTPClient: client}),
	}, nil
}

// already reports whether something exists from an earlier run on the same data directory.
func already(err error) bool {
	if e, ok := errors.AsType[*exception](err); ok {
		return e.Name == "ConflictException"
	}
	if e, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err); ok {
		// The contract gives a provider's duplicate name as a ValidationException.
		return e.ErrorCode() == "ConflictException" || e.ErrorCode() == "ValidationException"
	}
	return false
}

// workload creates a workload identity that may send browsers back to returnURL after consent.
func (a *admin) workload(ctx context.Context, name, returnURL string) error {
	_, err := a.control.CreateWorkloadIdentity(ctx, &bedrockagentcorecontrol.CreateWorkloadIdentityInput{
		Name: aws.String(name), AllowedResourceOauth2ReturnUrls: []string{returnURL}})
	if already(err) {
		_, err = a.control.UpdateWorkloadIdentity(ctx, &bedrockagentcorecontrol.UpdateWorkloadIdentityInput{
			Name: aws.String(name), AllowedResourceOauth2ReturnUrls: []string{returnURL}})
	}
	return err
}

// provider creates the credential provider, for the provider at this issuer or, without one, for Google itself. It
// returns the URL to register there.
func (a *admin) provider(ctx context.Context, clientID, clientSecret, issuer string) (string, error) {
	vendor := types.CredentialProviderVendorTypeGoogleOauth2
	var conf types.Oauth2ProviderConfigInput = &types.Oauth2ProviderConfigInputMemberGoogleOauth2ProviderConfig{
		Value: types.GoogleOauth2ProviderConfigInput{ClientId: aws.String(clientID), ClientSecret: aws.String(clientSecret)}}
	if issuer != "" { // Tabard has no entry for it, so its endpoints come by discovery
		vendor = types.CredentialProviderVendorTypeCustomOauth2
		conf = &types.Oauth2ProviderConfigInputMemberCustomOauth2ProviderConfig{Value: types.CustomOauth2ProviderConfigInput{
			OauthDiscovery: &types.Oauth2DiscoveryMemberDiscoveryUrl{Value: issuer + "/.well-known/openid-configuration"},
			ClientId:       aws.String(clientID), ClientSecret: aws.String(clientSecret)}}
	}
	made, err := a.control.CreateOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.CreateOauth2CredentialProviderInput{
		Name: aws.String(providerName), CredentialProviderVendor: vendor, Oauth2ProviderConfigInput: conf})
	if err == nil {
		return aws.ToString(made.CallbackUrl), nil
	}
	if !already(err) {
		return "", err
	}
	changed, errUpdate := a.control.UpdateOauth2CredentialProvider(ctx, &bedrockagentcorecontrol.UpdateOauth2CredentialProviderInput{
		Name: aws.String(providerName), CredentialProviderVendor: vendor, Oauth2ProviderConfigInput: conf})
	if errUpdate != nil {
		return "", errors.Join(err, errUpdate) // it may not have been the name that was wrong
	}
	return aws.ToString(changed.CallbackUrl), nil
}

// issuer trusts the identity provider's access tokens, if they were given to the web app. They are Cognito's shape:
// client_id says for whom they are, and there is no aud.
func (a *admin) issuer(ctx context.Context, url string) error {
	err := a.operator.call(ctx, "CreateTrustedIssuer", map[string]any{
		"issuer": url, "clientIds": []string{webName}, "tokenUse": "access"}, &struct{}{})
	if already(err) {
		return nil
	}
	return err
}

// principal creates a principal with one role, paired with workload identities, and returns an access key of its own.
// The keys of an earlier run are disabled: nobody holds them any more.
func (a *admin) principal(ctx context.Context, name, role string, workloads ...string) (aws.CredentialsProvider, error) {
	if workloads == nil {
		workloads = []string{}
	}
	err := a.operator.call(ctx, "CreatePrincipal", map[string]any{"name": name, "roles": []string{role}, "workloads": workloads}, &struct{}{})
	if err != nil && !already(err) {
		return nil, err
	}
	var old struct {
		AccessKeys []struct{ AccessKeyID, Status string }
	}
	if err := a.operator.call(ctx, "ListAccessKeys", map[string]string{"principalName": name}, &old); err != nil {
		return nil, err
	}
	for _, k := range old.AccessKeys {
		if k.Status != "ACTIVE" {
			continue
		}
		if err := a.operator.call(ctx, "DisableAccessKey", map[string]string{"accessKeyId": k.AccessKeyID}, &struct{}{}); err != nil {
			return nil, err
		}
	}
	var made struct {
		AccessKey struct{ AccessKeyID, SecretAccessKey string }
	}
	if err := a.operator.call(ctx, "CreateAccessKey", map[string]string{"principalName": name}, &made); err != nil {
		return nil, err
	}
	return credentials.NewStaticCredentialsProvider(made.AccessKey.AccessKeyID, made.AccessKey.SecretAccessKey, ""), nil
}

// allow lets an agent have the users' tokens of the credential provider, for one scope and no more. Without a policy it
// gets nothing: tabard allow NAME PROVIDER --scopes ... --flow USER_FEDERATION writes this one.
func (a *admin) allow(ctx context.Context, name, scope string) error {
	agent, action := "principal in Tabard::WorkloadIdentity::"+strconv.Quote(name), "action in Tabard::Action::"
	text := fmt.Sprintf("permit (%s, %s%q, resource);\n", agent, action, "mint") +
		fmt.Sprintf("permit (%s, %s%q, resource == Tabard::Provider::%q)\n", agent, action, "release", providerName) +
		fmt.Sprintf("when { context.flow == \"USER_FEDERATION\" && [%q].containsAll(context.scopes) };\n", scope)
	return a.operator.call(ctx, "PutPolicy", map[string]any{"name": "allow:" + name + ":" + providerName, "text": text}, &struct{}{})
}

// people creates everything that has to do with who may call: workload identities, principals, the trusted issuer.
func (a *admin) people(ctx context.Context, issuer, returnURL string) (keys, error) {
	var k keys
	for _, name := range []string{agentName, otherName} {
		if err := a.workload(ctx, name, returnURL); err != nil {
			return k, fmt.Errorf("workload identity %s: %w", name, err)
		}
		if err := a.allow(ctx, name, calendar.CalendarEventsScope); err != nil {
			return k, fmt.Errorf("policy of %s: %w", name, err)
		}
	}
	if err := a.issuer(ctx, issuer); err != nil {
		return k, fmt.Errorf("trusted issuer: %w", err)
	}
	for _, p := range []struct {
		into      *aws.CredentialsProvider
		name      string
		role      string
		workloads []string
	}{
		{&k.agent, agentName, "agent", []string{agentName}},
		{&k.other, otherName, "agent", []string{otherName}},
		{&k.web, webName, "consent-app", []string{agentName}},
		{&k.auditor, auditorName, "auditor", nil},
	} {
		var err error
		if *p.into, err = a.principal(ctx, p.name, p.role, p.workloads...); err != nil {
			return k, fmt.Errorf("principal %s: %w", p.name, err)
		}
	}
	return k, nil
}
