package e2e_test

import (
	"encoding/json"
	"net/http"

	"github.com/tabard-id/tabard/api"
)

// trail reads the whole trail of an account, as its auditor.
func (m *matrix) trail(account string) (records []api.AuditRecord) {
	m.t.Helper()
	auditor := m.actor(account, "auditor")
	in := map[string]any{"maxResults": 1000}
	for {
		r := m.transmit(m.request(auditor.key, http.MethodPost, "/tabard/ListAuditRecords", encode(m.t, in)))
		var page struct {
			Records   []api.AuditRecord
			NextToken string
		}
		if err := json.Unmarshal([]byte(r.body), &page); err != nil || r.status != http.StatusOK {
			m.t.Fatalf("the trail: %d %s", r.status, r.body)
		}
		records = append(records, page.Records...)
		if page.NextToken == "" {
			return records
		}
		in["nextToken"] = page.NextToken
	}
}

// audited holds the trail against all that was sent: each refusal left a record, each release exactly one that says
// what it was, and nothing else says that something was released.
func (m *matrix) audited() {
	m.t.Helper()
	byRequest, releases := map[string][]api.AuditRecord{}, 0
	for _, account := range []string{inHome, tenant} {
		for _, r := range m.trail(account) {
			if r.Account != account {
				m.t.Errorf("the trail of %s has a record of %s", account, r.Account)
			}
			byRequest[r.RequestID] = append(byRequest[r.RequestID], r)
			if r.Outcome == "released" {
				releases++
			}
		}
	}
	expected, refs := m.seeded, map[person]string{}
	for _, s := range m.sent {
		records := byRequest[s.reply.header.Get("X-Amzn-Requestid")]
		if why := unrecorded(s, records, refs); why != "" {
			m.t.Errorf("%s:\n\tanswered %d as %s\n\t%s: %+v", s.probe, s.reply.status, s.want, why, records)
		}
		if s.released() {
			expected++
		}
	}
	if releases != expected {
		m.t.Errorf("the trail has %d releases, and there were %d", releases, expected)
	}
	m.t.Logf("%d answers, %d releases, each in the trail", len(m.sent), releases)
}

// released reports whether something left with the answer.
func (s sent) released() bool {
	return s.releases && s.reply.status == http.StatusOK && s.reply.get("authorizationUrl") == ""
}

// unrecorded says what the records of an answer lack, or nothing.
func unrecorded(s sent, records []api.AuditRecord, refs map[person]string) string {
	var released, denials, consents int
	for _, r := range records {
		switch {
		case r.Outcome == "released":
			released++
			if why := misnamed(s, r, refs); why != "" {
				return why
			}
		case r.Outcome == "consent_required" && r.Decision == api.AuditDecisionAllow:
			consents++
		}
		if r.Decision == api.AuditDecisionDeny {
			denials++
		}
		if r.Principal != s.actor.name && (r.Principal != "" || s.want.kind != wantShut) { // who is disabled has not authenticated
			return "it has a record of somebody else"
		}
	}
	if s.released() != (released == 1) || released > 1 {
		return "the releases are not one for one"
	}
	switch s.reply.status {
	case http.StatusForbidden, http.StatusUnauthorized:
		if denials == 0 && s.want.kind != wantShut {
			return "the refusal left no record"
		}
	case http.StatusTooManyRequests:
		if denials == 0 && s.want.kind == wantFull {
			return "the refusal left no record"
		}
	case http.StatusBadRequest:
		if denials == 0 && s.want.kind == wantRefused {
			return "the refusal left no record that says so"
		}
	default:
		if len(records) == 0 && s.want.kind != wantAllowed {
			return "it left no record"
		}
	}
	if s.want.kind == wantConsent && consents != 1 {
		return "the consent that is needed left no record"
	}
	return ""
}

// misnamed holds the record of a release against what was asked.
func misnamed(s sent, r api.AuditRecord, refs map[person]string) string {
	who := person{s.actor.account, "", s.user}
	if r.Flow == "M2M" {
		who.user = byNobody
	}
	if known, ok := refs[who]; ok && known != r.UserRef {
		return "the release is recorded for another user"
	}
	refs[who] = r.UserRef
	for other, ref := range refs {
		if ref == r.UserRef && other != who && (ref != "" || other.user != byNobody) {
			return "two users have one reference"
		}
	}
	if r.Decision != api.AuditDecisionAllow || r.Action != s.op || r.WorkloadName != s.agent || r.Provider != s.provider || r.Account != s.actor.account || (r.UserRef == "") != (who.user == byNobody) {
		return "the release is recorded as another"
	}
	return ""
}
