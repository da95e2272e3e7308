package access

import (
	"fmt"
	"iter"
)

// The operations that the rule table knows. Their names are the wire's.
const (
	CreateWorkloadIdentity Action = "CreateWorkloadIdentity"
	GetWorkloadIdentity    Action = "GetWorkloadIdentity"
	ListWorkloadIdentities Action = "ListWorkloadIdentities"
	UpdateWorkloadIdentity Action = "UpdateWorkloadIdentity"
	DeleteWorkloadIdentity Action = "DeleteWorkloadIdentity"

	CreateOauth2CredentialProvider Action = "CreateOauth2CredentialProvider"
	GetOauth2CredentialProvider    Action = "GetOauth2CredentialProvider"
	ListOauth2CredentialProviders  Action = "ListOauth2CredentialProviders"
	UpdateOauth2CredentialProvider Action = "UpdateOauth2CredentialProvider"
	DeleteOauth2CredentialProvider Action = "DeleteOauth2CredentialProvider"

	GetWorkloadAccessToken          Action = "GetWorkloadAccessToken"
	GetWorkloadAccessTokenForJWT    Action = "GetWorkloadAccessTokenForJWT"
	GetWorkloadAccessTokenForUserID Action = "GetWorkloadAccessTokenForUserId"
	GetResourceOauth2Token          Action = "GetResourceOauth2Token"
	CompleteResourceTokenAuth       Action = "CompleteResourceTokenAuth"

	CreateAPIKeyCredentialProvider Action = "CreateApiKeyCredentialProvider"
	GetAPIKeyCredentialProvider    Action = "GetApiKeyCredentialProvider"
	ListAPIKeyCredentialProviders  Action = "ListApiKeyCredentialProviders"
	UpdateAPIKeyCredentialProvider Action = "UpdateApiKeyCredentialProvider"
	DeleteAPIKeyCredentialProvider Action = "DeleteApiKeyCredentialProvider"
	GetResourceAPIKey              Action = "GetResourceApiKey"

	GetTokenVault              Action = "GetTokenVault"
	SetTokenVaultCMK           Action = "SetTokenVaultCMK"
	ResetTokenVaultKeyMaterial Action = "ResetTokenVaultKeyMaterial"
	TagResource                Action = "TagResource"
	UntagResource              Action = "UntagResource"
	ListTagsForResource        Action = "ListTagsForResource"

	AddReturnURL            Action = "AddReturnUrl"
	RemoveReturnURL         Action = "RemoveReturnUrl"
	RestoreWorkloadIdentity Action = "RestoreWorkloadIdentity"
	ListConnections         Action = "ListConnections"
	GetConnection           Action = "GetConnection"
	RevokeConnection        Action = "RevokeConnection"
	DeleteConnection        Action = "DeleteConnection"
	TransferConnection      Action = "TransferConnection"
	ReportTokenInvalid      Action = "ReportTokenInvalid"
	DescribeUser            Action = "DescribeUser"
	GetUserInfo             Action = "GetUserInfo"
	TestProvider            Action = "TestProvider"
	ListVendors             Action = "ListVendors"
	SetIssuerLogin          Action = "SetIssuerLogin"

	CreateTrustedIssuer Action = "CreateTrustedIssuer"
	ListTrustedIssuers  Action = "ListTrustedIssuers"
	DeleteTrustedIssuer Action = "DeleteTrustedIssuer"
	CreatePrincipal     Action = "CreatePrincipal"
	ListPrincipals      Action = "ListPrincipals"
	EnablePrincipal     Action = "EnablePrincipal"
	DisablePrincipal    Action = "DisablePrincipal"
	CreateAccessKey     Action = "CreateAccessKey"
	ListAccessKeys      Action = "ListAccessKeys"
	EnableAccessKey     Action = "EnableAccessKey"
	DisableAccessKey    Action = "DisableAccessKey"
	ListAuditRecords    Action = "ListAuditRecords"

	CreateWorkloadIssuer                Action = "CreateWorkloadIssuer"
	DeleteWorkloadIssuer                Action = "DeleteWorkloadIssuer"
	CreateFederationRule                Action = "CreateFederationRule"
	DeleteFederationRule                Action = "DeleteFederationRule"
	PutPolicy                           Action = "PutPolicy"
	DeletePolicy                        Action = "DeletePolicy"
	DisableWorkloadIdentity             Action = "DisableWorkloadIdentity"
	EnableWorkloadIdentity              Action = "EnableWorkloadIdentity"
	DisableUser                         Action = "DisableUser"
	EnableUser                          Action = "EnableUser"
	DisableTrustedIssuer                Action = "DisableTrustedIssuer"
	EnableTrustedIssuer                 Action = "EnableTrustedIssuer"
	DisableCredentialProvider           Action = "DisableCredentialProvider"
	EnableCredentialProvider            Action = "EnableCredentialProvider"
	RevokeAccess                        Action = "RevokeAccess"
	EraseUser                           Action = "EraseUser"
	CreateAuditCheckpoint               Action = "CreateAuditCheckpoint"
	PruneAudit                          Action = "PruneAudit"
	SetCeilings                         Action = "SetCeilings"
	RotateSigningKey                    Action = "RotateSigningKey"
	ListWorkloadIssuers                 Action = "ListWorkloadIssuers"
	ListFederationRules                 Action = "ListFederationRules"
	GetPolicy                           Action = "GetPolicy"
	ListPolicies                        Action = "ListPolicies"
	ValidatePolicy                      Action = "ValidatePolicy"
	SimulateDecision                    Action = "SimulateDecision"
	ExplainDecision                     Action = "ExplainDecision"
	FindWhoCan                          Action = "FindWhoCan"
	ListStandings                       Action = "ListStandings"
	GetRevocation                       Action = "GetRevocation"
	ListAuditCheckpoints                Action = "ListAuditCheckpoints"
	VerifyAudit                         Action = "VerifyAudit"
	GetCeilings                         Action = "GetCeilings"
	ListSigningKeys                     Action = "ListSigningKeys"
	GetWorkloadAccessTokenForDelegation Action = "GetWorkloadAccessTokenForDelegation"
	ExchangeToken                       Action = "ExchangeToken"
	CreateDelegation                    Action = "CreateDelegation"
	ListDelegations                     Action = "ListDelegations"
	EndDelegation                       Action = "EndDelegation"
	IntrospectToken                     Action = "IntrospectToken"
	RevokeToken                         Action = "RevokeToken"
	CreateAccount                       Action = "CreateAccount"
	ListAccounts                        Action = "ListAccounts"
	UpdateAccount                       Action = "UpdateAccount"
	DisableAccount                      Action = "DisableAccount"
	EnableAccount                       Action = "EnableAccount"
	RotateRootKey                       Action = "RotateRootKey"

	// AssumeRole is what a federated workload does: its own token for the rights of a principal.
	AssumeRole Action = "AssumeRoleWithWebIdentity"

	// Events without a caller of the API: the user's browser, and the broker's own steps.
	Authorize     Action = "Authorize"     // the browser opened the authorization URL
	Callback      Action = "Callback"      // the provider sent the browser back
	RedeemCode    Action = "RedeemCode"    // a held code was exchanged
	RefreshTokens Action = "RefreshTokens" // a refresh token was used

	BackchannelLogout Action = "BackchannelLogout" // a user's issuer told that the user signed out
)

// Rule names who may perform an action besides root, where there are no policies. What a role's rights are, and what no
// policy can change, both come from it.
type Rule struct {
	Admin, Auditor bool
	Paired         Role // this role may, for workload identities that the caller is paired with
	AssertsUser    bool // the caller names the user itself: only for workload identities that accept that
	Anyone         bool // every principal of the account may: what it learns or ends, it has already
}

// Rules returns each action that is not root's alone, with its rule. The built-in policies and the schema of all
// policies are held against it, so it panics where an action that is listed has no rule: a list that ended there would
// leave out every action behind it, and nobody would be told.
func Rules() iter.Seq2[Action, Rule] {
	return func(yield func(Action, Rule) bool) {
		for _, a := range ruled() {
			r, known := RuleOf(a)
			if !known {
				panic(fmt.Sprintf("access: the action %s is listed and has no rule", a))
			}
			if !yield(a, r) {
				return
			}
		}
	}
}

// Actions returns every action once: those that have a rule, and those that have none.
func Actions() []Action { return append(ruled(), unruled()...) }

// unruled lists what policies do not decide: what is root's alone, what has no principal yet, and events.
func unruled() []Action {
	return []Action{
		PruneAudit, CreateAccount, ListAccounts, UpdateAccount, DisableAccount, EnableAccount, RotateRootKey,
		AssumeRole, Authorize, Callback, RedeemCode, RefreshTokens, BackchannelLogout,
	}
}

// ruled lists the actions of RuleOf.
func ruled() []Action {
	return []Action{
		CreateWorkloadIdentity, UpdateWorkloadIdentity, DeleteWorkloadIdentity, CreateOauth2CredentialProvider,
		UpdateOauth2CredentialProvider, DeleteOauth2CredentialProvider, CreateTrustedIssuer, DeleteTrustedIssuer,
		CreatePrincipal, EnablePrincipal, DisablePrincipal, CreateAccessKey, EnableAccessKey, DisableAccessKey,
		CreateAPIKeyCredentialProvider, UpdateAPIKeyCredentialProvider, DeleteAPIKeyCredentialProvider, SetTokenVaultCMK,
		ResetTokenVaultKeyMaterial, TagResource, UntagResource, AddReturnURL, RemoveReturnURL, RestoreWorkloadIdentity,
		RevokeConnection, DeleteConnection, TransferConnection, TestProvider, SetIssuerLogin, CreateWorkloadIssuer,
		DeleteWorkloadIssuer, CreateFederationRule, DeleteFederationRule, PutPolicy, DeletePolicy,
		DisableWorkloadIdentity, EnableWorkloadIdentity, DisableUser, EnableUser, DisableTrustedIssuer,
		EnableTrustedIssuer, DisableCredentialProvider, EnableCredentialProvider, RevokeAccess, EraseUser,
		CreateAuditCheckpoint, SetCeilings, RotateSigningKey, GetWorkloadIdentity, ListWorkloadIdentities,
		GetOauth2CredentialProvider, ListOauth2CredentialProviders, ListTrustedIssuers, ListPrincipals, ListAccessKeys,
		ListAuditRecords, GetAPIKeyCredentialProvider, ListAPIKeyCredentialProviders, GetTokenVault, ListTagsForResource,
		ListConnections, GetConnection, ListWorkloadIssuers, ListFederationRules, GetPolicy, ListPolicies, ValidatePolicy,
		SimulateDecision, ExplainDecision, FindWhoCan, ListStandings, GetRevocation, ListAuditCheckpoints, VerifyAudit,
		GetCeilings, ListSigningKeys, ListVendors, GetWorkloadAccessToken, GetWorkloadAccessTokenForJWT, GetResourceOauth2Token,
		GetResourceAPIKey, ReportTokenInvalid, DescribeUser, GetUserInfo, GetWorkloadAccessTokenForDelegation,
		ExchangeToken, GetWorkloadAccessTokenForUserID, CompleteResourceTokenAuth, CreateDelegation, ListDelegations,
		EndDelegation, IntrospectToken, RevokeToken,
	}
}

// RuleOf is the fixed table. An action that is not in it is denied to everybody but root, whatever policies say; an
// action unknown to the product never reaches the Guard.
func RuleOf(a Action) (Rule, bool) {
	switch a {
	case CreateWorkloadIdentity, UpdateWorkloadIdentity, DeleteWorkloadIdentity, CreateOauth2CredentialProvider,
		UpdateOauth2CredentialProvider, DeleteOauth2CredentialProvider, CreateTrustedIssuer, DeleteTrustedIssuer,
		CreatePrincipal, EnablePrincipal, DisablePrincipal, CreateAccessKey, EnableAccessKey, DisableAccessKey,
		CreateAPIKeyCredentialProvider, UpdateAPIKeyCredentialProvider, DeleteAPIKeyCredentialProvider, SetTokenVaultCMK,
		ResetTokenVaultKeyMaterial, TagResource, UntagResource, AddReturnURL, RemoveReturnURL, RestoreWorkloadIdentity,
		RevokeConnection, DeleteConnection, TransferConnection, TestProvider, SetIssuerLogin, CreateWorkloadIssuer,
		DeleteWorkloadIssuer, CreateFederationRule, DeleteFederationRule, PutPolicy, DeletePolicy,
		DisableWorkloadIdentity, EnableWorkloadIdentity, DisableUser, EnableUser, DisableTrustedIssuer,
		EnableTrustedIssuer, DisableCredentialProvider, EnableCredentialProvider, RevokeAccess, EraseUser,
		CreateAuditCheckpoint, SetCeilings, RotateSigningKey:
		return Rule{Admin: true}, true
	case GetWorkloadIdentity, ListWorkloadIdentities, GetOauth2CredentialProvider, ListOauth2CredentialProviders,
		ListTrustedIssuers, ListPrincipals, ListAccessKeys, ListAuditRecords, GetAPIKeyCredentialProvider,
		ListAPIKeyCredentialProviders, GetTokenVault, ListTagsForResource, ListConnections, GetConnection,
		ListWorkloadIssuers, ListFederationRules, GetPolicy, ListPolicies, ValidatePolicy, SimulateDecision,
		ExplainDecision, FindWhoCan, ListStandings, GetRevocation, ListAuditCheckpoints, VerifyAudit, GetCeilings,
		ListSigningKeys, ListVendors:
		return Rule{Admin: true, Auditor: true}, true
	case GetWorkloadAccessToken, GetWorkloadAccessTokenForJWT, GetResourceOauth2Token, GetResourceAPIKey,
		ReportTokenInvalid, DescribeUser, GetUserInfo, GetWorkloadAccessTokenForDelegation, ExchangeToken:
		return Rule{Paired: Agent}, true
	case GetWorkloadAccessTokenForUserID:
		return Rule{Paired: Agent, AssertsUser: true}, true
	case CompleteResourceTokenAuth:
		return Rule{Paired: ConsentApp}, true
	case CreateDelegation:
		return Rule{Paired: ConsentApp}, true
	case ListDelegations, EndDelegation:
		return Rule{Admin: true, Paired: ConsentApp}, true
	case IntrospectToken, RevokeToken:
		return Rule{Anyone: true}, true
	}
	return Rule{}, false
}

// Gate decides what no policy can change, and says so by its second result: a request without a caller, root's rights,
// the actions that are root's alone, and that only a principal with the right role, paired with the workload identity,
// acts for it. So no policy can let an administrator release tokens, or an agent confirm its own consent, and none can
// lock root out.
func Gate(c Caller, a Action, f Facts) (Decision, bool) {
	if c.Account == "" || c.Principal == "" {
		return Decision{By: "no-caller", Missing: "an authenticated caller"}, true
	}
	if c.Has(Root) {
		return Decision{Allow: true, By: "role:root"}, true
	}
	r, known := RuleOf(a)
	switch {
	case !known:
		return Decision{By: "default-deny", Missing: "the role root"}, true
	case r.Paired == "" || r.Admin && c.Has(Admin):
		return Decision{}, false
	case !c.Has(r.Paired):
		return Decision{By: "default-deny", Missing: "the role " + string(r.Paired)}, true
	case !c.PairedWith(f.Workload):
		return Decision{By: "not-paired", Missing: "a pairing of the principal with the workload identity"}, true
	case r.AssertsUser && !f.Assertable:
		return Decision{By: "users-not-assertable", Missing: "the tag tabard:assurance=asserted on the workload identity, which an administrator " +
			"sets: tabard tag add ARN tabard:assurance=asserted, with the ARN of tabard workload get " + f.Workload + ". Policies have to permit it too: " +
			"tabard allow " + f.Workload + " PROVIDER --asserted-users"}, true
	}
	return Decision{}, false
}

// ActsFor reports whether the caller of the action acts for the workload identity that the facts name: the action is
// done for one, and the caller is paired with it.
func ActsFor(c Caller, a Action, f Facts) bool {
	r, known := RuleOf(a)
	return known && r.Paired != "" && f.Workload != "" && c.PairedWith(f.Workload)
}

// decide applies the table.
func decide(c Caller, a Action, f Facts) Decision {
	if d, decided := Gate(c, a, f); decided {
		return d
	}
	r, _ := RuleOf(a)
	switch {
	case r.Anyone:
		return Decision{Allow: true, By: "any-principal"}
	case r.Admin && c.Has(Admin):
		return Decision{Allow: true, By: "role:admin"}
	case r.Auditor && c.Has(Auditor):
		return Decision{Allow: true, By: "role:auditor"}
	case r.Paired != "" && c.Has(r.Paired):
		return Decision{Allow: true, By: "role:" + string(r.Paired)}
	case r.Auditor:
		return Decision{By: "default-deny", Missing: "the role admin or auditor"}
	}
	return Decision{By: "default-deny", Missing: "the role admin"}
}
