package e2e_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/api"
)

// Who may do what beside the data plane, by docs/policy.md. Every operation of the models is in one of these lists, in
// none of which it is by what the server does.
const (
	// root, admin and auditor
	readOps = `GetApiKeyCredentialProvider GetOauth2CredentialProvider GetTokenVault GetWorkloadIdentity ListApiKeyCredentialProviders
		ListOauth2CredentialProviders ListTagsForResource ListWorkloadIdentities ExplainDecision FindWhoCan GetCeilings GetConnection GetPolicy
		GetRevocation ListAccessKeys ListAuditCheckpoints ListAuditRecords ListConnections ListFederationRules ListPolicies ListPrincipals
		ListSigningKeys ListStandings ListTrustedIssuers ListVendors ListWorkloadIssuers SimulateDecision ValidatePolicy VerifyAudit`
	// root and admin, where what is named must be there
	manageOps = `DeleteApiKeyCredentialProvider DeleteOauth2CredentialProvider DeleteWorkloadIdentity TagResource UntagResource
		UpdateApiKeyCredentialProvider UpdateOauth2CredentialProvider UpdateWorkloadIdentity AddReturnUrl CreateAccessKey CreateFederationRule
		DeleteConnection DeleteFederationRule DeletePolicy DeleteTrustedIssuer DeleteWorkloadIssuer DisableAccessKey DisableCredentialProvider
		DisablePrincipal DisableTrustedIssuer DisableWorkloadIdentity EnableAccessKey EnableCredentialProvider EnablePrincipal
		EnableTrustedIssuer EnableWorkloadIdentity RemoveReturnUrl RestoreWorkloadIdentity RevokeConnection SetCeilings SetIssuerLogin
		TestProvider TransferConnection`
	// root and admin, whatever is named
	makeOps = `CreateApiKeyCredentialProvider CreateOauth2CredentialProvider CreateWorkloadIdentity ResetTokenVaultKeyMaterial SetTokenVaultCMK
		CreateAuditCheckpoint CreatePrincipal CreateTrustedIssuer CreateWorkloadIssuer DisableUser EnableUser EraseUser PutPolicy RevokeAccess`
	rootOps    = `RotateRootKey PruneAudit`                                              // root
	keeperOps  = `CreateAccount ListAccounts UpdateAccount DisableAccount EnableAccount` // root of the installation's own account
	signingOps = `RotateSigningKey`                                                      // root and admin of that account
	// cells of their own
	subjectOps = `CompleteResourceTokenAuth GetResourceApiKey GetResourceOauth2Token GetWorkloadAccessToken GetWorkloadAccessTokenForJWT
		GetWorkloadAccessTokenForUserId GetWorkloadAccessTokenForDelegation ReportTokenInvalid DescribeUser GetUserInfo
		CreateDelegation ListDelegations EndDelegation`
)

func among(op, list string) bool { return slices.Contains(strings.Fields(list), op) }

// administers says whether the principal may perform an operation that is not of the data plane.
func (m *matrix) administers(a *actor, op string) bool {
	is := func(roles ...string) bool {
		return slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(a.roles, r) })
	}
	switch {
	case among(op, readOps):
		return is("root", "admin", "auditor")
	case among(op, manageOps), among(op, makeOps):
		return is("root", "admin")
	case among(op, rootOps):
		return is("root")
	case among(op, keeperOps):
		return is("root") && a.account == inHome
	case among(op, signingOps):
		return is("root", "admin") && a.account == inHome
	}
	m.t.Fatalf("operation %s is in no cell of the matrix", op)
	return false
}

// controlOps are the operations that this file is about.
func controlOps() (ops []api.Operation) {
	for _, op := range api.Operations() {
		if !open(op.Name) && !among(op.Name, subjectOps) {
			ops = append(ops, op)
		}
	}
	return ops
}

// directory is the names of what an account has, by the members that name it. of is the account in names that are in
// one only, and with a number that no account has they are nobody's.
func (m *matrix) directory(account, of string) map[string]any {
	var rule, connection string
	if account == of {
		boss := m.boss(account)
		rule = nested(m.t, m.call(boss, "ListFederationRules", map[string]any{}), "ruleId")
		connection = m.truth.stored[spot(account, "ann", byAlice, onCalendar)].id
	}
	d := map[string]any{"name": own(of), "workloadName": own(of), "principalName": own(of), "providerName": own(of), "resourceCredentialProviderName": own(of),
		"accessKeyId": "", "ruleId": rule, "connectionId": connection, "accountId": of, "issuer": "https://" + of + ".example.com",
		"resourceArn": fmt.Sprintf("arn:aws:bedrock-agentcore:us-east-1:%s:workload-identity-directory/default/workload-identity/%s", of, own(of))}
	for _, a := range m.actors {
		if a.account == of && a.name == "auditor" {
			d["accessKeyId"] = a.key.ID
		}
	}
	return d
}

// nobodys is a directory of the same form, of which nothing is there.
func nobodys(d map[string]any, account string) map[string]any {
	const none = "999999999999"
	out := map[string]any{}
	for name, v := range d {
		if s := strings.ReplaceAll(v.(string), account, none); s != v {
			out[name] = s
		} else {
			out[name] = altered(s)
		}
	}
	return out
}

// administer is an operation of the control plane on what a directory names.
func (m *matrix) administer(a *actor, op api.Operation, in *inputs, where string) *probe {
	p := &probe{actor: a, op: op.Name, method: op.Method, detail: "on what is " + where}
	p.path, p.body = in.request(m.t, op.Name, op.Path, among(op.Name, "CreateTrustedIssuer ListConnections ListAuditRecords ListAccessKeys"))
	p.expect = func() want {
		switch {
		case m.truth.disabled[a.String()]:
			return want{kind: wantShut}
		case !m.administers(a, op.Name):
			return want{kind: wantDenied}
		}
		return want{kind: wantAllowed}
	}
	return p
}

// ends ends a delegation, which is another's or nobody's where id is not its own.
func (m *matrix) ends(a *actor, d *delegated, id, user string) *probe {
	p := &probe{actor: a, op: api.OpEndDelegation, agent: d.agent, user: user, loud: true, detail: fmt.Sprintf("delegation of %s/%s/%s as %s", d.account, d.agent, d.user, id),
		expect: func() want { return m.truth.end(a, d, id, user) }}
	p.done = func(reply) { d.ended = d.ended || p.want.kind == wantFine }
	return m.calls(p, map[string]any{"delegationId": id, "userToken": m.sign(user)})
}

// end is the end of a delegation: by its user, at an application of its agent, or at an administrator.
func (o *truth) end(a *actor, d *delegated, id, user string) want {
	is := func(role string) bool { return slices.Contains(a.roles, role) }
	there := d.account == a.account && d.id == id && (is("root") || is("admin") || acts(a, "consent-app", d.agent))
	switch {
	case o.disabled[a.String()]:
		return want{kind: wantShut}
	case !is("root") && !is("admin") && !is("consent-app"):
		return want{kind: wantDenied}
	case there && o.down[standing(a.account, "issuer", corporateIssuer)]:
		return want{kind: wantDead, or: wantDenied}
	}
	return yesElse(there && d.user == user, wantFine, wantAbsent)
}

// lists are the delegations that a user sees at an agent.
func (m *matrix) lists(a *actor, agent, user string) *probe {
	p := &probe{actor: a, op: api.OpListDelegations, agent: agent, user: user, expect: func() want {
		is := func(role string) bool { return slices.Contains(a.roles, role) }
		switch {
		case m.truth.disabled[a.String()]:
			return want{kind: wantShut}
		case !is("root") && !is("admin") && !acts(a, "consent-app", agent):
			return want{kind: wantDenied}
		case agent == onNothing:
			return want{kind: wantAbsent}
		case m.truth.down[standing(a.account, "issuer", corporateIssuer)]:
			return want{kind: wantDead, or: wantDenied}
		}
		return want{kind: wantFine}
	}}
	p.tells = func(r reply) string {
		for _, d := range m.truth.delegations {
			if strings.Contains(r.body, d.id) != (d.account == a.account && d.agent == agent && d.user == user) {
				return "it has another's delegation, or not all of the user's: " + d.id
			}
		}
		return ""
	}
	return m.calls(p, map[string]any{"workloadName": agent, "userToken": m.sign(user), "maxResults": 100})
}
