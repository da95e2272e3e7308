package awsapi

import (
	"context"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/audit"
	"github.com/tabard-id/tabard/internal/fault"
)

func (s *server) auditRoutes() {
	route(s, api.OpListAuditRecords, s.listAuditRecords)
	route(s, api.OpListAuditCheckpoints, s.listAuditCheckpoints)
	route(s, api.OpCreateAuditCheckpoint, func(ctx context.Context, c access.Caller, _ *api.CreateAuditCheckpointRequest) (*api.CreateAuditCheckpointResponse, error) {
		made, err := s.Trail.Create(ctx, c)
		if err != nil {
			return nil, err
		}
		shown := checkpointOf(made)
		return &api.CreateAuditCheckpointResponse{Checkpoint: &shown}, nil
	})
	route(s, api.OpVerifyAudit, func(ctx context.Context, c access.Caller, q *api.VerifyAuditRequest) (*api.VerifyAuditResponse, error) {
		more, _, err := page(q.NextToken, 0, 1)
		if err != nil {
			return nil, err
		}
		v, err := s.Trail.Verify(ctx, c, q.Checkpoint, more)
		if err != nil {
			return nil, err
		}
		a := &api.VerifyAuditResponse{Verified: v.Sound(), RecordsChecked: v.Checked, RecordsUnprovable: v.Unprovable, Findings: []api.AuditFinding{}, NextToken: cursor(v.More)}
		for _, f := range v.Findings {
			a.Findings = append(a.Findings, api.AuditFinding{Kind: api.AuditFindingKind(f.Kind), Writer: f.Writer, Sequence: f.Sequence, Message: f.Message})
		}
		return a, nil
	})
	route(s, api.OpPruneAudit, func(ctx context.Context, c access.Caller, q *api.PruneAuditRequest) (*api.PruneAuditResponse, error) {
		removed, err := s.Trail.Prune(ctx, c, q.CheckpointID)
		if err != nil {
			return nil, err
		}
		return &api.PruneAuditResponse{RecordsRemoved: removed}, nil
	})
}

// listAuditRecords follows the trail without an end where the newest are asked for, as tail -f does. Else it ends at
// the time of the first page: each read is a record itself, so reading to the last one would never end.
func (s *server) listAuditRecords(ctx context.Context, c access.Caller, q *api.ListAuditRecordsRequest) (*api.ListAuditRecordsResponse, error) {
	after, limit, err := page(q.NextToken, q.MaxResults, 100)
	if err != nil {
		return nil, err
	}
	query := access.Query{
		Limit: limit, Workload: q.WorkloadName, Newest: q.Newest, Principal: q.PrincipalName, UserRef: q.UserRef, Provider: q.ProviderName,
		Action: access.Action(q.Operation), Outcome: q.Outcome, Denied: q.DeniedOnly, From: q.From.Time, To: q.To.Time,
	}
	if query.After, err = until(&query, after, s.Now()); err != nil {
		return nil, err
	}
	facts := access.Facts{Workload: q.WorkloadName, Provider: q.ProviderName, UserRef: q.UserRef}
	if err := s.Guard.Permit(ctx, c, access.ListAuditRecords, facts); err != nil {
		return nil, err
	}
	records, next, err := s.Audit.Records(ctx, c.Account, query)
	if err != nil {
		return nil, err
	}
	if next != "" && !query.To.IsZero() {
		next += untilMark + strconv.FormatInt(query.To.UnixMilli(), 10)
	}
	a := &api.ListAuditRecordsResponse{Records: make([]api.AuditRecord, 0, len(records)), NextToken: cursor(next)}
	for _, r := range records {
		a.Records = append(a.Records, recordOf(r))
	}
	return a, nil
}

// endMargin is how far the clocks of replicas are apart at most: what was answered before this read began is in it.
const endMargin = time.Second

// untilMark stands in a cursor before the time at which reading ends.
const untilMark = "|"

// until sets the end of a query, from the page before or for the first page, and returns the store's cursor.
func until(q *access.Query, after string, now time.Time) (string, error) {
	position, end, ended := strings.Cut(after, untilMark)
	switch {
	case ended:
		millis, err := strconv.ParseInt(end, 10, 64)
		if err != nil {
			return "", fault.Field("nextToken", "is not a token that this operation returned")
		}
		if q.To.IsZero() {
			q.To = time.UnixMilli(millis)
		}
	case after == "" && !q.Newest && q.To.IsZero():
		q.To = now.Add(endMargin)
	}
	return position, nil
}

func recordOf(r access.Record) api.AuditRecord {
	f := r.Facts
	a := api.AuditRecord{
		RecordID: r.ID(), Time: api.At(r.Time), Principal: r.Name, PrincipalID: string(r.Principal), AccessKeyID: r.AccessKey, Action: string(r.Action),
		Resource: f.Resource, WorkloadName: f.Workload, WorkloadUid: f.WorkloadUID, UserRef: f.UserRef, Asserted: f.Asserted, Provider: f.Provider,
		Flow: f.Flow, Scopes: f.Scopes, ConnectionID: f.Connection, Decision: api.AuditDecisionDeny, Rule: r.Rule, Outcome: f.Outcome, Detail: f.Detail,
		Generation: f.Generation, RequestID: r.RequestID, Writer: r.Writer, Sequence: r.Sequence, Hash: hex.EncodeToString(r.Hash[:]),
		PreviousHash: hex.EncodeToString(r.Prev[:]), Account: string(r.Account), Assertable: f.Assertable,
	}
	if r.Allow {
		a.Decision = api.AuditDecisionAllow
	}
	return a
}

func checkpointOf(c audit.Checkpoint) api.AuditCheckpoint {
	return api.AuditCheckpoint{CheckpointID: c.ID, Time: api.At(c.Time), Records: c.Records, Writers: c.Writers, Token: c.Token}
}

func (s *server) listAuditCheckpoints(ctx context.Context, c access.Caller, q *api.ListAuditCheckpointsRequest) (*api.ListAuditCheckpointsResponse, error) {
	after, limit, err := page(q.NextToken, q.MaxResults, 100)
	if err != nil {
		return nil, err
	}
	before := int64(0)
	if after != "" {
		if before, err = strconv.ParseInt(after, 10, 64); err != nil || before < 1 {
			return nil, fault.Field("nextToken", "is not a token that this operation returned")
		}
	}
	list, err := s.Trail.List(ctx, c, before, limit)
	if err != nil {
		return nil, err
	}
	a := &api.ListAuditCheckpointsResponse{Checkpoints: make([]api.AuditCheckpoint, 0, len(list))}
	for _, one := range list {
		a.Checkpoints = append(a.Checkpoints, checkpointOf(one))
	}
	if len(list) == limit && list[limit-1].Number > 1 {
		a.NextToken = cursor(strconv.FormatInt(list[limit-1].Number, 10))
	}
	return a, nil
}
