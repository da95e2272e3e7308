package main

import (
	"context"
	"slices"
)

// record is one audit record, as the API shows it.
type record struct {
	Sequence     int64
	Time         float64
	Principal    string
	Action       string
	WorkloadName string
	UserRef      string
	Provider     string
	Scopes       []string
	ConnectionID string
	Decision     string
	Rule         string
	Outcome      string
	Detail       string
	Generation   int64
	RequestID    string
}

// denied reports whether the record is of a refusal.
func (r record) denied() bool { return r.Decision == "deny" }

// trail reads the audit records, with a principal of its own that may do nothing else. It is no part of the web app:
// that one completes consents and may not read about others. What it shows to a person is cut down to that person
// first.
type trail struct{ operator *operator }

type recordPage struct {
	Records   []record
	NextToken string
}

// mark returns the place where the trail ends now.
func (t *trail) mark(ctx context.Context) (string, error) {
	var p recordPage
	err := t.operator.call(ctx, "ListAuditRecords", map[string]any{"newest": true, "maxResults": 1}, &p)
	return p.NextToken, err
}

// since returns the records after a mark, oldest first; at most 5000.
func (t *trail) since(ctx context.Context, mark string) ([]record, error) {
	var all []record
	for range 5 {
		in := map[string]any{"maxResults": 1000}
		if mark != "" {
			in["nextToken"] = mark
		}
		var p recordPage
		if err := t.operator.call(ctx, "ListAuditRecords", in, &p); err != nil {
			return nil, err
		}
		all = append(all, p.Records...)
		if len(p.Records) < 1000 || p.NextToken == "" || p.NextToken == mark {
			break
		}
		mark = p.NextToken
	}
	return all, nil
}

// about keeps the records of one user's doings with one agent. The user is known from the requests that the agent made
// for them: the trail itself holds no names.
func about(all []record, workload string, requests []string) []record {
	user := ""
	for _, r := range all {
		if r.UserRef != "" && slices.Contains(requests, r.RequestID) {
			user = r.UserRef
		}
	}
	var mine []record
	for _, r := range all {
		theirs := user != "" && r.UserRef == user && r.WorkloadName == workload
		if theirs || slices.Contains(requests, r.RequestID) {
			mine = append(mine, r)
		}
	}
	return mine
}

// find returns the last record with this action and outcome.
func find(records []record, action, outcome string) (record, bool) {
	for _, r := range slices.Backward(records) {
		if r.Action == action && r.Outcome == outcome {
			return r, true
		}
	}
	return record{}, false
}
