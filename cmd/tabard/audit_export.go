package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/audit"
)

func auditExport(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "export FILE", Short: "Copy the trail into a file", Args: exactly("FILE"),
		Long: `Writes every record and every checkpoint of the trail up to now into FILE, as JSON Lines that tabard audit verify --segment
verifies without a server. docs/format.md has the lines. A FILE that exists is continued where it ended, also where an export
was interrupted. What it has stays, whatever was pruned on the server since. A FILE of another trail is refused, and one that the
server's records do not follow on. Only its owner can read a new FILE.`,
		Example: examples(
			"tabard audit export trail.jsonl", "all there is; run it again to add what came since",
			"tabard audit checkpoint > kept.jwt && tabard audit export trail.jsonl", "with a checkpoint that it reaches to, which is made first"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		e := &exporter{c: c, note: newMeter(cmd)}
		if err := e.run(cmd.Context(), args[0]); err != nil {
			return err
		}
		e.note.done()
		return say(cmd, "%s has %d records and %d checkpoints more", args[0], e.records, e.checkpoints)
	}
	return cmd
}

// exporter writes one segment, and only ever adds to it: what a file has may be nowhere else. Before the records of a
// page it writes with what the page is asked for, so that the next export begins there.
type exporter struct {
	c                    *client
	note                 *meter
	has                  segment
	file                 *os.File
	out                  *bufio.Writer
	records, checkpoints int64
}

func (e *exporter) run(ctx context.Context, path string) (err error) {
	if e.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	defer func() {
		if bad := e.file.Close(); err == nil {
			err = bad
		}
	}()
	if e.has, err = readSegment(path, e.file); err != nil {
		return err
	}
	now, newest, err := serverNow(ctx, e.c)
	if err != nil {
		return err
	}
	// Before the records, so that those which they cover are there. Both before the file is touched.
	first, err := call[api.ListAuditCheckpointsResponse](ctx, e.c, api.OpListAuditCheckpoints, api.ListAuditCheckpointsRequest{})
	if err != nil {
		return err
	}
	q := api.ListAuditRecordsRequest{MaxResults: maxTail, NextToken: e.has.position, To: now}
	page, err := call[api.ListAuditRecordsResponse](ctx, e.c, api.OpListAuditRecords, q)
	if err != nil {
		return err
	}
	if err := e.has.sameTrail(e.c.url, newest, page.Records, first.Checkpoints); err != nil {
		return err
	}
	more, err := e.has.continued(page.Records)
	if err != nil {
		return err
	}
	// What comes behind the last whole line is no record.
	if err := e.file.Truncate(e.has.whole); err != nil {
		return err
	}
	if _, err := e.file.Seek(e.has.whole, io.SeekStart); err != nil {
		return err
	}
	e.out = bufio.NewWriter(e.file)
	if err := e.checkpointLines(ctx, first); err != nil {
		return err
	}
	if err := e.recordLines(ctx, q, page.NextToken, more); err != nil {
		return err
	}
	if err := e.out.Flush(); err != nil {
		return err
	}
	return e.file.Sync()
}

func (e *exporter) line(l audit.Line) error {
	doc, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = e.out.Write(append(doc, '\n'))
	return err
}

// checkpointLines writes the checkpoints that the file has not, the newest first.
func (e *exporter) checkpointLines(ctx context.Context, a api.ListAuditCheckpointsResponse) error {
	for {
		for _, c := range a.Checkpoints {
			n, err := audit.NumberOf(c.Token)
			if err != nil || n <= e.has.upTo {
				return err
			}
			if e.has.checkpoints[n] {
				continue
			}
			if err := e.line(audit.Line{Type: "checkpoint", Checkpoint: c.Token}); err != nil {
				return err
			}
			e.checkpoints++
			e.note.say("%d checkpoints", e.checkpoints)
		}
		if a.NextToken == "" {
			return nil
		}
		var err error
		q := api.ListAuditCheckpointsRequest{NextToken: a.NextToken}
		if a, err = call[api.ListAuditCheckpointsResponse](ctx, e.c, api.OpListAuditCheckpoints, q); err != nil {
			return err
		}
	}
}

// recordLines writes the records of the page that q asked for, and of those behind it.
func (e *exporter) recordLines(ctx context.Context, q api.ListAuditRecordsRequest, next string, records []api.AuditRecord) error {
	for {
		if err := e.line(audit.Line{Type: "position", Position: q.NextToken}); err != nil {
			return err
		}
		for _, r := range records {
			row := rowOf(r)
			if err := e.line(audit.Line{Type: "record", Record: &row}); err != nil {
				return err
			}
		}
		e.records += int64(len(records))
		e.note.say("%d records", e.records)
		if next == "" {
			return nil
		}
		if err := e.out.Flush(); err != nil { // an interruption costs one page
			return err
		}
		q.NextToken = next
		a, err := call[api.ListAuditRecordsResponse](ctx, e.c, api.OpListAuditRecords, q)
		if err != nil {
			return err
		}
		next, records = a.NextToken, a.Records
	}
}

// serverNow is a second after the newest record, by the server's clocks, whatever this machine's says, and that record.
func serverNow(ctx context.Context, c *client) (api.Timestamp, api.AuditRecord, error) {
	q := api.ListAuditRecordsRequest{MaxResults: 1, Newest: true}
	a, err := call[api.ListAuditRecordsResponse](ctx, c, api.OpListAuditRecords, q)
	if err != nil || len(a.Records) == 0 {
		return api.Timestamp{}, api.AuditRecord{}, err
	}
	return api.At(a.Records[0].Time.Add(time.Second)), a.Records[0], nil
}

// rowOf is an API record with all that its hash covers.
func rowOf(r api.AuditRecord) audit.Row {
	return audit.Row{
		Writer: r.Writer, Sequence: r.Sequence, Time: r.Time.UnixMilli(), Account: r.Account, PrincipalID: r.PrincipalID, Principal: r.Principal,
		AccessKeyID: r.AccessKeyID, RequestID: r.RequestID, Action: r.Action, Allow: r.Decision == api.AuditDecisionAllow,
		Rule: r.Rule, Resource: r.Resource, Workload: r.WorkloadName, WorkloadUID: r.WorkloadUid, UserRef: r.UserRef, Provider: r.Provider,
		Flow: r.Flow, Connection: r.ConnectionID, Outcome: r.Outcome, Detail: r.Detail, Asserted: r.Asserted, Assertable: r.Assertable,
		Generation: r.Generation, Scopes: r.Scopes, PreviousHash: r.PreviousHash, Hash: r.Hash,
	}
}
