package e2e_test

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// explained is a reason for the rows that match a pattern.
func explained(rows, why string) reason { return reason{regexp.MustCompile(rows), why} }

// reason says why some client does not exercise the members of the rows that it matches.
type reason struct {
	rows *regexp.Regexp
	why  string
}

// reasons are tried in order. Each must be of use: TestMembersAreExplained fails for one that is not.
var reasons = []reason{
	explained(`^\w+Payment`, "payment credential providers are not offered: nothing is made, so nothing is found"),
	explained(`^\w+ConsentPortal`, "consent portals are not offered: nothing is made, so nothing is found; hosted consent is Tabard's own"),
	explained(`^\w+ResourcePolicy `, "resource policies are not offered: access is by the roles of principals"),
	explained(`^ResetTokenVaultKeyMaterial `, "there is no key of a customer's to reset yet; the SDK for JavaScript does not have the operation yet"),
	explained(`TokenVault(CMK)? (in|out) kmsConfiguration.kmsKeyArn$`, "keys of a customer's own are not offered yet"),
	explained(` in (.*\.clientSecretConfig|apiKeySecretConfig)`, "EXTERNAL secrets are not offered yet: there is no Secrets Manager here"),
	explained(` out (clientSecret|apiKeySecret)JsonKey$`, "of EXTERNAL secrets, which are not offered yet"),
	explained(`\.onBehalfOfAuthenticationConfig`, "the SDK for JavaScript does not have the member yet"),
	explained(`\.privateEndpoint`, "private endpoints are not offered yet: the server connects from where it runs"),
	explained(`\.privateKeySource`, "keys in AWS's KMS are not offered: the server makes a key for the provider"),
	explained(` out .*\.additional(Header|Payload)Claims$`, "the additional claims do not come back: they may be secret"),
	explained(` out .*(atlassian|github|google|included|linkedin|microsoft|salesforce|slack)Oauth2ProviderConfig\.oauthDiscovery\.discoveryUrl$`,
		"of vendors the answer has the endpoints themselves"),
	explained(` out .*\.tokenEndpointAuthMethods$`, "of vendors the catalogue says how the client authenticates; the caller gave no list"),
	explained(`^GetOauth2CredentialProvider out failureReason$`, "a provider is ready as soon as it is made: none can fail later"),
	explained(`^RevokeConnection out connection\.(expiresAt|refreshable)$`, "a revoked connection holds no token"),
	explained(`^RevokeConnection out detail$`, "only where the provider refused or was out of reach: internal/broker/revoke_test.go has both"),
	explained(`^(Create|Update|Enable)Account out account\.reason$`, "only of accounts that are disabled: ListAccounts has it"),
	explained(`^CreateDelegation out delegation\.(ended|lastUsed)Time$`, "a delegation that was just made has neither: EndDelegation has both"),
	explained(` accessKeys?\.lastUsedTime$`, "uses are written once a minute, and the suite is over by then: internal/identity/account_test.go has it"),
	explained(`(User|TrustedIssuer) out standing\.name$`, "only workload identities and credential providers have a name beside the key"),
	explained(`^Enable\w+ out standing\.reason$`, "what is enabled has no reason any more"),
	explained(`^RevokeAccess out revocation\.(revoked|failed|unsupported)Upstream$`, "providers are told after the answer: GetRevocation has what came of it"),
	explained(`^VerifyAudit (in|out) nextToken$`, "only of trails of more than 20000 records, which are verified in parts"),
	explained(`^VerifyAudit out findings\.`, "only of trails that were changed in the database, which no client can do: internal/store/checkpoints_test.go has each kind"),
	explained(`WorkloadIssuers? out workloadIssuers?\.tokenReview$`, "of issuers that the server's configuration has reviewed: federationthreats_test.go has one"),
	explained(`^CreateDelegation in grants\.providerKind$`, "needed only if a provider of each kind has the name: internal/e2e/scopes_test.go has it"),
	explained(`\.?scopesUnknown$`, "only of questions about tokens whose scopes are not known: internal/e2e/scopes_test.go has one"),
	explained(` out connections?\.parameters$`, "only of tokens that were asked for with parameters that name them: internal/broker/parameters_test.go has them"),
	explained(`( out connections?\.|^FindWhoCan out )resource$`, "only of vendors whose tokens are each for one resource: internal/e2e/parameters_test.go has one"),
	explained(`( out connections?\.)sharesGrantWith$`, "only at providers that end all of a user's tokens with one: internal/broker/grant_test.go has one"),
	explained(` in (question\.)?parameters$`, "only of questions about requests with custom parameters: internal/e2e/parameters_test.go has them"),
	explained(`ackchannelLogout(Uri)?$`, "of issuers that tell of logouts: internal/e2e/logout_test.go has one"),
	explained(`^TransferConnection out connection\.reason$`, "of connections that are out of order, which cannot be transferred"),
}

func reasonOf(row string) string {
	for _, r := range reasons {
		if r.rows.MatchString(row) {
			return r.why
		}
	}
	return ""
}

// ownCall finds an operation of ours that the root package calls: by ours, or in the place of a call of AWS's.
var ownCall = regexp.MustCompile(`\bours\(ctx, "(\w+)"|const op = "(GetWorkloadAccessTokenForDelegation)"`)

// rootCalls are the operations of ours that the root package has a call for.
func rootCalls(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(peer.Root(t), "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		for _, m := range ownCall.FindAllSubmatch(mustRead(t, path), -1) {
			names = append(names, string(m[1])+string(m[2]))
		}
	}
	return names
}
