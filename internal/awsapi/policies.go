package awsapi

import (
	"context"
	"encoding/json"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/policy"
)

func (s *server) cedarRoutes() {
	route(s, api.OpPutPolicy, func(ctx context.Context, c access.Caller, q *api.PutPolicyRequest) (*api.PutPolicyResponse, error) {
		row, problems, err := s.Policies.Put(ctx, c, policy.Draft{Name: q.Name, Text: q.Text, Description: q.Description, Expected: q.ExpectedVersion})
		if err != nil {
			return nil, err
		}
		shown := policyOf(row)
		return &api.PutPolicyResponse{Policy: &shown, Problems: problemsOf(problems)}, nil
	})
	route(s, api.OpGetPolicy, func(ctx context.Context, c access.Caller, q *api.GetPolicyRequest) (*api.GetPolicyResponse, error) {
		row, err := s.Policies.Get(ctx, c, q.Name)
		shown := policyOf(row)
		return &api.GetPolicyResponse{Policy: &shown}, err
	})
	route(s, api.OpListPolicies, func(ctx context.Context, c access.Caller, q *api.ListPoliciesRequest) (*api.ListPoliciesResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		rows, next, err := s.Policies.List(ctx, c, policy.Filter{Principal: q.PrincipalName, Workload: q.WorkloadName}, after, limit)
		if err != nil {
			return nil, err
		}
		a := &api.ListPoliciesResponse{Policies: make([]api.Policy, 0, len(rows)), NextToken: cursor(next)}
		for _, row := range rows {
			a.Policies = append(a.Policies, policyOf(row))
		}
		return a, nil
	})
	route(s, api.OpDeletePolicy, func(ctx context.Context, c access.Caller, q *api.DeletePolicyRequest) (*api.DeletePolicyResponse, error) {
		return &api.DeletePolicyResponse{}, s.Policies.Delete(ctx, c, q.Name)
	})
	route(s, api.OpValidatePolicy, func(ctx context.Context, c access.Caller, q *api.ValidatePolicyRequest) (*api.ValidatePolicyResponse, error) {
		problems, err := s.Policies.Validate(ctx, c, q.Text)
		return &api.ValidatePolicyResponse{Problems: problemsOf(problems)}, err
	})
	s.decisionRoutes()
}

// decisionRoutes are the questions about decisions.
func (s *server) decisionRoutes() {
	route(s, api.OpSimulateDecision, func(ctx context.Context, c access.Caller, q *api.SimulateDecisionRequest) (*api.SimulateDecisionResponse, error) {
		n := q.Question
		user, id, err := userFactsOf("question.user.claims", n.User)
		if err != nil {
			return nil, err
		}
		d, err := s.Policies.Simulate(ctx, c, policy.Case{
			Principal: n.PrincipalName, Action: access.Action(n.Operation), Workload: n.WorkloadName, Provider: n.ProviderName, User: user, UserID: id,
			Scopes: n.Scopes, Parameters: n.Parameters, Flow: n.Flow, Audience: n.Audience, From: n.From, Time: n.Time.Time,
		}, q.Policies)
		return &api.SimulateDecisionResponse{Decision: decisionOf(d)}, err
	})
	route(s, api.OpExplainDecision, func(ctx context.Context, c access.Caller, q *api.ExplainDecisionRequest) (*api.ExplainDecisionResponse, error) {
		x, err := s.Policies.Explain(ctx, c, q.RecordID)
		record := recordOf(x.Record)
		return &api.ExplainDecisionResponse{Record: &record, Then: decisionOf(x.Then), Now: decisionOf(x.Now), Remarks: x.Remarks}, err
	})
	route(s, api.OpFindWhoCan, func(ctx context.Context, c access.Caller, q *api.FindWhoCanRequest) (*api.FindWhoCanResponse, error) {
		user, id, err := userFactsOf("user.claims", q.User)
		if err != nil {
			return nil, err
		}
		found, resource, err := s.Policies.WhoCan(ctx, c, policy.Case{
			Action: access.Action(q.Operation), Workload: q.WorkloadName, Provider: q.ProviderName, User: user, UserID: id,
			Scopes: q.Scopes, Parameters: q.Parameters, Flow: q.Flow, Audience: q.Audience, From: q.From,
		})
		a := &api.FindWhoCanResponse{Resource: resource, Principals: make([]api.PolicyHolder, 0, len(found))}
		for _, h := range found {
			a.Principals = append(a.Principals, api.PolicyHolder{
				PrincipalName: h.Caller.Name, PrincipalID: string(h.Caller.Principal), Policies: h.Decision.Policies, Rule: h.Decision.By, ScopesBeyond: h.Decision.Beyond,
				ScopesUnknown: h.Decision.Unknown,
			})
		}
		return a, err
	})
}

// userFactsOf reads a user of a question. field names the member that has the claims.
func userFactsOf(field string, u *api.PolicyUser) (facts access.UserFacts, id string, err error) {
	if u == nil {
		return facts, "", nil
	}
	if u.UserID != "" && (u.Issuer != "" || u.Subject != "" || u.Claims != "") {
		return facts, "", fault.Field("user", "is named either by userId, or by what a token says: issuer, subject and claims")
	}
	if u.Claims != "" {
		var object map[string]any
		if json.Unmarshal([]byte(u.Claims), &object) != nil {
			return facts, "", fault.Field(field, "is not a JSON object")
		}
	}
	return access.UserFacts{Issuer: u.Issuer, Subject: u.Subject, Claims: u.Claims}, u.UserID, nil
}

func policyOf(p policy.Row) api.Policy {
	return api.Policy{
		Name: p.Name, Text: p.Text, Description: p.Description, Source: api.PolicySource(p.Source), Version: p.Version, CreatedBy: p.CreatedBy,
		CreatedTime: api.At(p.Created), LastUpdatedTime: api.At(p.Updated),
	}
}

func problemsOf(found []policy.Problem) []api.PolicyProblem {
	out := make([]api.PolicyProblem, len(found))
	for i, p := range found {
		out[i] = api.PolicyProblem{Severity: api.PolicyProblemSeverity(p.Severity), Line: int64(p.Line), Column: int64(p.Column), Message: p.Message}
	}
	return out
}

func decisionOf(d access.Decision) *api.PolicyDecision {
	return &api.PolicyDecision{Allowed: d.Allow, Rule: d.By, Policies: d.Policies, Missing: d.Missing, ScopesBeyond: d.Beyond, ScopesUnknown: d.Unknown}
}
