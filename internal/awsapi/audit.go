package awsapi

import (
	"context"
	"encoding/hex"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
)

func (s *server) auditRoutes() {
	route(s, api.OpListAuditRecords, func(ctx context.Context, c access.Caller, q *api.ListAuditRecordsRequest) (*api.ListAuditRecordsResponse, error) {
		after, limit, err := page(q.NextToken, q.MaxResults, 100)
		if err != nil {
			return nil, err
		}
		if err := s.Guard.Permit(ctx, c, access.ListAuditRecords, access.Facts{Workload: q.WorkloadName}); err != nil {
			return nil, err
		}
		records, next, err := s.Audit.Records(ctx, c.Account, access.Query{After: after, Limit: limit, Workload: q.WorkloadName, Newest: q.Newest})
		if err != nil {
			return nil, err
		}
		a := &api.ListAuditRecordsResponse{Records: make([]api.AuditRecord, 0, len(records)), NextToken: cursor(next)}
		for _, r := range records {
			a.Records = append(a.Records, recordOf(r))
		}
		return a, nil
	})
}

func recordOf(r access.Record) api.AuditRecord {
	f := r.Facts
	a := api.AuditRecord{
		RecordID: r.ID(), Time: api.At(r.Time), Principal: r.Name, PrincipalID: string(r.Principal), AccessKeyID: r.AccessKey, Action: string(r.Action),
		Resource: f.Resource, WorkloadName: f.Workload, WorkloadUid: f.WorkloadUID, UserRef: f.UserRef, Asserted: f.Asserted, Provider: f.Provider,
		Flow: f.Flow, Scopes: f.Scopes, ConnectionID: f.Connection, Decision: api.AuditDecisionDeny, Rule: r.Rule, Outcome: f.Outcome, Detail: f.Detail,
		Generation: f.Generation, RequestID: r.RequestID, Writer: r.Writer, Sequence: r.Sequence, Hash: hex.EncodeToString(r.Hash[:]),
	}
	if r.Allow {
		a.Decision = api.AuditDecisionAllow
	}
	return a
}
