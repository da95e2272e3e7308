package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/audit"
)

func auditVerify(t terminal, f *finder) *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify", Short: "Prove that nothing in the trail was changed", Args: exactly(),
		Long: `Finds every record before a checkpoint that was edited, removed, put in or moved. The checkpoint is one that was kept outside
the database: a file with its token, or with one token a line, of which the last counts. Without --checkpoint the newest one of the
database is taken, which cannot show that somebody put back an older copy of the whole database. What came after the checkpoint
cannot be proven, and is counted.

With --segment nothing is asked of a server: exported files are verified, in the order of their export, with the keys of tabard
audit keys, kept elsewhere too.

Exit codes: 0 nothing was changed, 1 something was (each finding is one line), 2 the checkpoint, the keys or a segment cannot be
read, 4 and 5 as everywhere.`,
		Example: examples(
			"tabard audit verify --checkpoint checkpoints.log", "by the last line of the server's --audit-checkpoint-file",
			"tabard audit verify --segment trail.jsonl --checkpoint kept.jwt --keys keys.json", "an exported trail, offline"),
	}
	v := verifier{t: t}
	cmd.Flags().StringVar(&v.checkpoint, "checkpoint", "", "`file` of a checkpoint that was kept outside the database")
	cmd.Flags().StringArrayVar(&v.segments, "segment", nil, "exported `file` to verify without a server; may be given again")
	cmd.Flags().StringVar(&v.keys, "keys", "", "`file` of the keys that sign checkpoints (JWK set), for --segment")
	v.out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := v.out.check(); err != nil {
			return err
		}
		v.cmd, v.note = cmd, newMeter(cmd)
		if len(v.segments) > 0 {
			return v.offline()
		}
		if v.keys != "" {
			return usage("tabard audit verify --segment trail.jsonl --checkpoint kept.jwt --keys keys.json", "--keys goes with --segment: a server has its own")
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		return v.online(cmd.Context(), c)
	}
	return cmd
}

// verifier is one run of tabard audit verify.
type verifier struct {
	t          terminal
	cmd        *cobra.Command
	note       *meter
	checkpoint string
	segments   []string
	keys       string
	short      bool // the files may be older than the checkpoint, and nothing else was found
	out        output
}

// token reads the last line of the checkpoint file.
func (v *verifier) token() (string, error) {
	if v.checkpoint == "" {
		return "", nil
	}
	doc, err := os.ReadFile(v.checkpoint)
	if err != nil {
		return "", usage("--checkpoint names a file", "the checkpoint cannot be read: %s", oneLine(err.Error()))
	}
	lines := strings.Fields(string(doc))
	if len(lines) == 0 {
		return "", usage("--checkpoint names a file with a token", "%s is empty", v.checkpoint)
	}
	return lines[len(lines)-1], nil
}

func (v *verifier) online(ctx context.Context, c *client) error {
	token, err := v.token()
	if err != nil {
		return err
	}
	q := api.VerifyAuditRequest{Checkpoint: token}
	total := api.VerifyAuditResponse{Verified: true, Findings: []api.AuditFinding{}}
	for first := true; first || q.NextToken != ""; first = false {
		a, err := call[api.VerifyAuditResponse](ctx, c, api.OpVerifyAudit, q)
		if err != nil {
			return err
		}
		total.Verified = total.Verified && a.Verified
		total.RecordsChecked += a.RecordsChecked
		total.RecordsUnprovable += a.RecordsUnprovable
		total.Findings = append(total.Findings, a.Findings...)
		q.NextToken = a.NextToken
		v.note.say("%d records verified", total.RecordsChecked)
	}
	return v.report(total)
}

func (v *verifier) offline() error {
	if v.checkpoint == "" || v.keys == "" {
		return usage("tabard audit verify --segment trail.jsonl --checkpoint kept.jwt --keys keys.json", "--segment needs --checkpoint and --keys")
	}
	token, err := v.token()
	if err != nil {
		return err
	}
	keys, err := os.ReadFile(v.keys)
	if err != nil {
		return usage("tabard audit keys prints them", "the keys cannot be read: %s", oneLine(err.Error()))
	}
	verdict, err := verifySegments(token, keys, v.segments, func(n int64) { v.note.say("%d records verified", n) })
	if err != nil {
		return &failure{exit: exitUsage, msg: oneLine(err.Error()), err: err}
	}
	total := api.VerifyAuditResponse{Verified: verdict.Sound(), RecordsChecked: verdict.Checked, RecordsUnprovable: verdict.Unprovable, Findings: []api.AuditFinding{}}
	v.short = verdict.Short
	for _, f := range verdict.Findings {
		total.Findings = append(total.Findings, api.AuditFinding{Kind: api.AuditFindingKind(f.Kind), Writer: f.Writer, Sequence: f.Sequence, Message: f.Message})
	}
	return v.report(total)
}

// verifySegments verifies exported files up to a checkpoint.
func verifySegments(token string, keys []byte, paths []string, note func(int64)) (audit.Verdict, error) {
	s, err := audit.NewSegments(token, keys)
	if err != nil {
		return audit.Verdict{}, err
	}
	each := func(read func(io.Reader) error) error {
		for _, path := range paths {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			err = errors.Join(read(f), f.Close())
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
		return nil
	}
	if err := each(s.Scan); err != nil {
		return audit.Verdict{}, err
	}
	if err := s.Begin(); err != nil {
		return audit.Verdict{}, err
	}
	if err := each(func(r io.Reader) error { return s.Records(r, note) }); err != nil {
		return audit.Verdict{}, err
	}
	return s.End(), nil
}

func (v *verifier) report(a api.VerifyAuditResponse) error {
	v.note.done()
	if v.out.format == "json" {
		if err := show(v.cmd, v.out, []api.VerifyAuditResponse{a}, nil); err != nil {
			return err
		}
	} else {
		for _, f := range a.Findings {
			at := strings.Trim(fmt.Sprintf("%s %s", cmp.Or(f.Writer, ""), number(f.Sequence)), " ")
			if err := say(v.cmd, "%s", strings.TrimSpace(fmt.Sprintf("%-10s %s: %s", f.Kind, cmp.Or(at, "trail"), f.Message))); err != nil {
				return err
			}
		}
		verdict := "nothing before the checkpoint was changed"
		switch {
		case v.short:
			verdict = "the files do not reach to the checkpoint"
		case !a.Verified:
			verdict = "the trail before the checkpoint was changed"
		case v.checkpoint == "":
			verdict += ", by the database's own checkpoint: an older copy of the database would pass (--checkpoint FILE)"
		}
		if err := say(v.cmd, "%d records verified, %d later ones that the checkpoint cannot prove: %s", a.RecordsChecked, a.RecordsUnprovable, verdict); err != nil {
			return err
		}
	}
	if v.short {
		return &failure{exit: exitFailed, msg: "the files do not have all that the checkpoint covers", hints: []string{
			"they are older than the checkpoint, or their end was removed: tabard audit export FILE again, then verify again",
			"or give a checkpoint that is older than the files"}}
	}
	if !a.Verified {
		return &failure{exit: exitFailed, msg: "the audit trail was changed", hints: []string{"compare with the exported segments and the sinks; docs/audit.md says what each finding means"}}
	}
	return nil
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
