package audit

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Line is one line of an exported segment (JSON Lines), and of what sinks are given. Type says which of the others is
// set.
type Line struct {
	Type       string `json:"type"` // "record", "checkpoint", or "position"
	Record     *Row   `json:"record,omitempty"`
	Checkpoint string `json:"checkpoint,omitempty"` // the token
	Position   string `json:"position,omitempty"`   // with what the records that follow were asked for, to resume an export
}

// Row is a record with all that its hash covers. Empty members are left out.
type Row struct {
	Writer       string   `json:"writer"`
	Sequence     int64    `json:"sequence"`
	Time         int64    `json:"timeMillis"`
	Account      string   `json:"account,omitempty"`
	PrincipalID  string   `json:"principalId,omitempty"`
	Principal    string   `json:"principal,omitempty"`
	AccessKeyID  string   `json:"accessKeyId,omitempty"`
	RequestID    string   `json:"requestId,omitempty"`
	Action       string   `json:"action"`
	Allow        bool     `json:"allow"`
	Rule         string   `json:"rule,omitempty"`
	Resource     string   `json:"resource,omitempty"`
	Workload     string   `json:"workloadName,omitempty"`
	WorkloadUID  string   `json:"workloadUid,omitempty"`
	UserRef      string   `json:"userRef,omitempty"`
	Provider     string   `json:"provider,omitempty"`
	Flow         string   `json:"flow,omitempty"`
	Connection   string   `json:"connectionId,omitempty"`
	Outcome      string   `json:"outcome,omitempty"`
	Detail       string   `json:"detail,omitempty"`
	Asserted     bool     `json:"asserted,omitempty"`
	Assertable   bool     `json:"assertable,omitempty"`
	Generation   int64    `json:"generation,omitempty"`
	Scopes       []string `json:"scopes,omitempty"`
	PreviousHash string   `json:"previousHash"` // hexadecimal
	Hash         string   `json:"hash"`
}

// RowOf is the row of a record.
func RowOf(r access.Record) Row {
	f := r.Facts
	return Row{
		Writer: r.Writer, Sequence: r.Sequence, Time: r.Time.UnixMilli(), Account: string(r.Account), PrincipalID: string(r.Principal),
		Principal: r.Name, AccessKeyID: r.AccessKey, RequestID: r.RequestID, Action: string(r.Action), Allow: r.Allow, Rule: r.Rule,
		Resource: f.Resource, Workload: f.Workload, WorkloadUID: f.WorkloadUID, UserRef: f.UserRef, Provider: f.Provider, Flow: f.Flow,
		Connection: f.Connection, Outcome: f.Outcome, Detail: f.Detail, Asserted: f.Asserted, Assertable: f.Assertable,
		Generation: f.Generation, Scopes: f.Scopes, PreviousHash: hex.EncodeToString(r.Prev[:]), Hash: hex.EncodeToString(r.Hash[:]),
	}
}

// Record is the record of a row, or an Invalid fault.
func (w Row) Record() (access.Record, error) {
	r := access.Record{
		Writer: w.Writer, Sequence: w.Sequence, Time: time.UnixMilli(w.Time).UTC(), Account: access.Account(w.Account),
		Principal: access.PrincipalID(w.PrincipalID), Name: w.Principal, AccessKey: w.AccessKeyID, RequestID: w.RequestID,
		Action: access.Action(w.Action), Allow: w.Allow, Rule: w.Rule,
		Facts: access.Facts{
			Resource: w.Resource, Workload: w.Workload, WorkloadUID: w.WorkloadUID, UserRef: w.UserRef, Provider: w.Provider, Flow: w.Flow,
			Connection: w.Connection, Outcome: w.Outcome, Detail: w.Detail, Asserted: w.Asserted, Assertable: w.Assertable,
			Generation: w.Generation, Scopes: w.Scopes,
		},
	}
	prev, err1 := hex.DecodeString(w.PreviousHash)
	hash, err2 := hex.DecodeString(w.Hash)
	if err1 != nil || err2 != nil || copy(r.Prev[:], prev) != len(prev) || copy(r.Hash[:], hash) != len(hash) || len(prev) != 32 || len(hash) != 32 {
		return r, fault.New(fault.Invalid, "record %d of writer %.64q has a hash that is none", w.Sequence, w.Writer)
	}
	return r, nil
}

// maxLine bounds one line of a segment.
const maxLine = 1 << 20

// Segments verifies exported segments without a server. They are read in the order in which they were exported; records
// that come twice count once.
type Segments struct {
	claims  Claims
	keys    []byte
	base    Claims // the checkpoint behind which the trail was pruned, where the segments hold it
	closed  map[int64]Head
	chains  map[string]*chain
	heads   map[string]Head // where a writer's chain ends for the checkpoint, as far as it is known
	newest  int64           // number of the newest checkpoint in the segments
	short   int             // findings that an export before the checkpoint explains
	verdict Verdict
}

// NewSegments begins to verify up to the checkpoint token, with the JWK set of the keys.
func NewSegments(token string, keys []byte) (*Segments, error) {
	claims, err := Open(token, keys)
	if err != nil {
		return nil, err
	}
	s := &Segments{claims: claims, keys: keys, closed: map[int64]Head{}, chains: map[string]*chain{}}
	s.ends(claims, token)
	return s, nil
}

// Scan is the first pass over a segment: for its checkpoints, which are needed before its records.
func (s *Segments) Scan(r io.Reader) error {
	return lines(r, func(l Line) error {
		if l.Type != "checkpoint" {
			return nil
		}
		c, err := Open(l.Checkpoint, s.keys)
		if err != nil && s.claims.Anew != nil { // one of the revoked key: what it lists must fit the hashes that are signed
			if old, bad := unproven(l.Checkpoint); bad == nil && old.Number <= s.claims.Anew.Number {
				c, err = old, nil
			}
		}
		if err != nil {
			return err
		}
		if c.Account == s.claims.Account {
			s.newest = max(s.newest, c.Number)
			s.ends(c, l.Checkpoint)
		}
		return nil
	})
}

// ends notes which writers a checkpoint took for ended, and whether the trail was pruned behind it.
func (s *Segments) ends(c Claims, token string) {
	for _, h := range c.Writers {
		if h.Closed > 0 {
			s.closed[h.Closed] = h
		}
	}
	if s.claims.Base != nil && ref(token) == s.claims.Base.Hash {
		s.base = c
	}
}

// Begin is called between the two passes. It works out where each chain must end.
func (s *Segments) Begin() error {
	s.heads = map[string]Head{}
	if s.claims.Anew != nil {
		s.find(Unprovable, "", "%s", s.claims.Anew)
	}
	// A trail that was pruned begins behind its base where the segments hold that. Where they hold what was pruned too,
	// they are verified from the beginning.
	sum := Closed{}
	if len(s.closed) > 0 || s.claims.Closed.Count > 0 {
		if _, ok := s.closed[1]; !ok {
			sum = s.base.Closed
		}
	}
	for sum.Count < s.claims.Closed.Count {
		w, ok := s.closed[sum.Count+1]
		hash, valid := decodeHash(w.Hash)
		if !ok || !valid {
			if s.newest < s.claims.Number {
				s.short++
			}
			s.find(Broken, "", "the segments lack the checkpoint in which writer number %d ended", sum.Count+1)
			break
		}
		s.heads[w.Writer] = w
		next, err := sum.add(Writer{Name: w.Writer, Sequence: w.Sequence, Hash: hash})
		if err != nil {
			return err
		}
		sum = next
	}
	if sum.Count == s.claims.Closed.Count && sum.Hash != s.claims.Closed.Hash {
		s.find(Broken, "", "the list of the writers that ended is another than the checkpoint says")
	}
	for _, h := range s.claims.Writers {
		if h.Closed == 0 {
			s.heads[h.Writer] = h
		}
	}
	return nil
}

func (s *Segments) find(k Kind, writer, message string, args ...any) {
	c := chain{writer: writer}
	c.report(k, 0, message, args...)
	s.verdict.Findings = append(s.verdict.Findings, c.found...)
}

// Records is the second pass over a segment. progress is called now and then with how many records were verified.
func (s *Segments) Records(r io.Reader, progress func(checked int64)) error {
	return lines(r, func(l Line) error {
		if l.Type != "record" || l.Record == nil {
			return nil
		}
		record, err := l.Record.Record()
		if err != nil {
			return err
		}
		to, known := s.heads[record.Writer]
		if !known || record.Sequence > to.Sequence {
			s.verdict.Unprovable++
			return nil
		}
		c := s.chain(record, to)
		if record.Sequence <= c.at.Sequence {
			return nil // of an earlier segment, or of a record that comes twice: the first one counts
		}
		c.next(Entry{Record: record})
		if s.verdict.Checked++; s.verdict.Checked%page == 0 {
			progress(s.verdict.Checked)
		}
		return nil
	})
}

// chain is that of a record's writer. Where the trail was pruned behind a base that the segments hold, it begins there.
func (s *Segments) chain(r access.Record, to Head) *chain {
	c, ok := s.chains[r.Writer]
	if ok {
		return c
	}
	c = &chain{writer: r.Writer, to: to, files: true}
	if h, ok := baseHeads(s.base)[r.Writer]; ok && r.Sequence > 1 {
		c.at.Sequence = h.Sequence
		c.at.Hash, _ = decodeHash(h.Hash)
	}
	s.chains[r.Writer] = c
	return c
}

// End returns the verdict.
func (s *Segments) End() Verdict {
	base := baseHeads(s.base)
	for name, to := range s.heads {
		c, ok := s.chains[name]
		if !ok {
			c = &chain{writer: name, to: to, files: true}
			if h, pruned := base[name]; pruned {
				c.at.Sequence = h.Sequence
				c.at.Hash, _ = decodeHash(h.Hash)
			}
		}
		if c.at.Sequence < to.Sequence {
			s.short++
		}
		c.end()
		s.verdict.Findings = append(s.verdict.Findings, c.found...)
	}
	slices.SortFunc(s.verdict.Findings, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Writer, b.Writer), cmp.Compare(a.Sequence, b.Sequence))
	})
	s.verdict.Short = len(s.verdict.Findings) > 0 && s.short == len(s.verdict.Findings)
	return s.verdict
}

// lines calls do for each line.
func lines(r io.Reader, do func(Line) error) error {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	n := 0
	for in.Scan() {
		n++
		var l Line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return fault.New(fault.Invalid, "line %d of the segment is no record: it was cut or changed", n)
		}
		if err := do(l); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fault.Wrap(fault.Invalid, err, "line %d of the segment cannot be read, or is too long", n+1)
	}
	return nil
}
