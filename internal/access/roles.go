package access

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

	// Events without a caller of the API: the user's browser, and the broker's own steps.
	Authorize     Action = "Authorize"     // the browser opened the authorization URL
	Callback      Action = "Callback"      // the provider sent the browser back
	RedeemCode    Action = "RedeemCode"    // a held code was exchanged
	RefreshTokens Action = "RefreshTokens" // a refresh token was used
)

// rule names who may perform an action besides root.
type rule struct {
	admin, auditor bool
	paired         Role // this role may, for workload identities that the caller is paired with
	assertsUser    bool // the caller names the user itself: only for workload identities that accept that
}

// rules is the fixed table. An action that is not in it is denied to everybody but root; an action unknown to the
// product never reaches the Guard. A later policy engine takes this table's place.
func rules(a Action) (rule, bool) {
	switch a {
	case CreateWorkloadIdentity, UpdateWorkloadIdentity, DeleteWorkloadIdentity,
		CreateOauth2CredentialProvider, UpdateOauth2CredentialProvider, DeleteOauth2CredentialProvider,
		CreateTrustedIssuer, DeleteTrustedIssuer,
		CreatePrincipal, EnablePrincipal, DisablePrincipal,
		CreateAccessKey, EnableAccessKey, DisableAccessKey,
		CreateAPIKeyCredentialProvider, UpdateAPIKeyCredentialProvider, DeleteAPIKeyCredentialProvider,
		SetTokenVaultCMK, ResetTokenVaultKeyMaterial, TagResource, UntagResource,
		AddReturnURL, RemoveReturnURL, RestoreWorkloadIdentity, RevokeConnection, DeleteConnection, TransferConnection,
		TestProvider, SetIssuerLogin:
		return rule{admin: true}, true
	case GetWorkloadIdentity, ListWorkloadIdentities, GetOauth2CredentialProvider, ListOauth2CredentialProviders,
		ListTrustedIssuers, ListPrincipals, ListAccessKeys, ListAuditRecords,
		GetAPIKeyCredentialProvider, ListAPIKeyCredentialProviders, GetTokenVault, ListTagsForResource,
		ListConnections, GetConnection, ListVendors:
		return rule{admin: true, auditor: true}, true
	case GetWorkloadAccessToken, GetWorkloadAccessTokenForJWT, GetResourceOauth2Token, GetResourceAPIKey, ReportTokenInvalid,
		DescribeUser, GetUserInfo:
		return rule{paired: Agent}, true
	case GetWorkloadAccessTokenForUserID:
		return rule{paired: Agent, assertsUser: true}, true
	case CompleteResourceTokenAuth:
		return rule{paired: ConsentApp}, true
	}
	return rule{}, false
}

// decide applies the table. The second result names the rule that decided, for the record; the third tells the
// caller what is missing when the answer is no.
func decide(c Caller, a Action, f Facts) (allow bool, by, missing string) {
	if c.Account == "" || c.Principal == "" {
		return false, "no-caller", "an authenticated caller"
	}
	if c.Has(Root) {
		return true, "role:root", ""
	}
	r, known := rules(a)
	switch {
	case !known:
		return false, "default-deny", "the role root"
	case r.admin && c.Has(Admin):
		return true, "role:admin", ""
	case r.auditor && c.Has(Auditor):
		return true, "role:auditor", ""
	case r.paired != "" && c.Has(r.paired):
		if !c.PairedWith(f.Workload) {
			return false, "not-paired", "a pairing of the principal with the workload identity"
		}
		if r.assertsUser && !f.Assertable {
			return false, "users-not-assertable", "the tag tabard:assurance=asserted on the workload identity, which an administrator sets"
		}
		return true, "role:" + string(r.paired), ""
	case r.paired != "":
		return false, "default-deny", "the role " + string(r.paired)
	case r.auditor:
		return false, "default-deny", "the role admin or auditor"
	}
	return false, "default-deny", "the role admin"
}
