package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
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
was interrupted: what it wrote last is fetched again. Only its owner can read a new FILE.`,
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

// exporter writes one segment. Before each page of records it writes with what the page is asked for, so that the last
// page can be fetched again.
type exporter struct {
	c                    *client
	note                 *meter
	file                 *os.File
	out                  *bufio.Writer
	position             string
	newest               int64 // number of the newest checkpoint in the file
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
	if err := e.resume(); err != nil {
		return err
	}
	e.out = bufio.NewWriter(e.file)
	// First, so that the records they cover are there.
	if err := e.checkpointLines(ctx); err != nil {
		return err
	}
	if err := e.recordLines(ctx); err != nil {
		return err
	}
	if err := e.out.Flush(); err != nil {
		return err
	}
	return e.file.Sync()
}

// resume reads what an earlier export wrote, and cuts what comes behind its last position.
func (e *exporter) resume() error {
	in := bufio.NewScanner(e.file)
	in.Buffer(make([]byte, 0, 64<<10), 1<<20)
	at, whole, newest := int64(0), int64(0), int64(0)
	for in.Scan() {
		var l audit.Line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			break // cut by an interruption
		}
		switch l.Type {
		case "position":
			whole, e.position, e.newest = at, l.Position, newest
		case "checkpoint":
			if n, err := audit.NumberOf(l.Checkpoint); err == nil {
				newest = max(newest, n)
			}
		case "record":
		default:
			return fmt.Errorf("the file is no export of the audit trail: nothing is written to it")
		}
		at += int64(len(in.Bytes())) + 1
	}
	if err := in.Err(); err != nil || at == 0 && size(e.file) > 0 {
		return fmt.Errorf("the file is no export of the audit trail: nothing is written to it")
	}
	if err := e.file.Truncate(whole); err != nil {
		return err
	}
	_, err := e.file.Seek(whole, 0)
	return err
}

func size(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
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
func (e *exporter) checkpointLines(ctx context.Context) error {
	var q api.ListAuditCheckpointsRequest
	for {
		a, err := call[api.ListAuditCheckpointsResponse](ctx, e.c, api.OpListAuditCheckpoints, q)
		if err != nil {
			return err
		}
		for _, c := range a.Checkpoints {
			if n, err := audit.NumberOf(c.Token); err != nil || n <= e.newest {
				return err
			}
			if err := e.line(audit.Line{Type: "checkpoint", Checkpoint: c.Token}); err != nil {
				return err
			}
			e.checkpoints++
			e.note.say("%d checkpoints", e.checkpoints)
		}
		if q.NextToken = a.NextToken; q.NextToken == "" {
			return nil
		}
	}
}

func (e *exporter) recordLines(ctx context.Context) error {
	now, err := serverNow(ctx, e.c)
	if err != nil {
		return err
	}
	q := api.ListAuditRecordsRequest{MaxResults: maxTail, NextToken: e.position, To: now}
	for {
		if err := e.line(audit.Line{Type: "position", Position: q.NextToken}); err != nil {
			return err
		}
		a, err := call[api.ListAuditRecordsResponse](ctx, e.c, api.OpListAuditRecords, q)
		if err != nil {
			return err
		}
		for _, r := range a.Records {
			row := rowOf(r)
			if err := e.line(audit.Line{Type: "record", Record: &row}); err != nil {
				return err
			}
		}
		e.records += int64(len(a.Records))
		e.note.say("%d records", e.records)
		if q.NextToken = a.NextToken; q.NextToken == "" {
			return nil
		}
		if err := e.out.Flush(); err != nil { // an interruption costs one page
			return err
		}
	}
}

// serverNow is a second after the newest record, by the server's clocks, whatever this machine's says.
func serverNow(ctx context.Context, c *client) (api.Timestamp, error) {
	a, err := call[api.ListAuditRecordsResponse](ctx, c, api.OpListAuditRecords, api.ListAuditRecordsRequest{MaxResults: 1, Newest: true})
	if err != nil || len(a.Records) == 0 {
		return api.Timestamp{}, err
	}
	return api.At(a.Records[0].Time.Add(time.Second)), nil
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
