// Package policy decides by Cedar policies who may do what: the rights of the roles are built in, and an account's own
// policies give agents theirs. Nothing is allowed without a policy.
//
// Security argument: what no policy may change is decided before any is read (access.Gate): an agent acts only for
// workload identities that it is paired with, an administrator releases nothing, root cannot be locked out. Everything
// else is denied unless a policy permits it and no policy forbids it. Doubt denies: a stored permit that cannot be read
// permits nothing, a stored forbid that cannot be read or evaluated forbids all that it could have meant, and without
// the store nothing but root is served. The index only leaves out policies whose scope cannot match, so it cannot
// change an answer.
package policy

import (
	"context"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
)

// Source says where a policy comes from.
type Source string

// The sources.
const (
	BuiltIn Source = "BUILT_IN" // the rights of a role, read-only
	Created Source = "CREATED"  // written by somebody
	Upgrade Source = "UPGRADE"  // what the rule table of earlier versions allowed, written once
)

// MaxText bounds the text of a policy, in bytes.
const MaxText = 32 << 10

// Row is a policy as it is stored: a name and a Cedar text of one or more statements.
type Row struct {
	Account     access.Account
	Name        string
	Text        string
	Description string
	Source      Source
	Version     int64 // each write of a policy of the account takes the next
	Deleted     bool  // the row is what a deletion left, with the deletion's version
	CreatedBy   string
	Created     time.Time
	Updated     time.Time
}

// Store keeps policies.
type Store interface {
	// PolicyVersion returns the version of the account's last write, 0 before the first. It is recent: up to one second
	// old.
	PolicyVersion(ctx context.Context, account access.Account) (int64, error)
	// PoliciesSince returns each policy whose last write, a deletion included, is later than version. Versions MUST become
	// visible in their order: once a reader has seen one, none before it may appear.
	PoliciesSince(ctx context.Context, account access.Account, version int64) ([]Row, error)
}

// Config is what an Engine needs.
type Config struct {
	Store Store            // nil: there are the built-in policies only
	Now   func() time.Time // the clock of context.time
	// Unreadable is told of each stored policy that cannot be read (see Problem), once for each of its versions. May be
	// nil. It must not call the Engine.
	Unreadable func(access.Account, Problem)
}

// Engine decides. It keeps each account's policies parsed and reads again only what has changed. It is safe for
// concurrent use and owns no goroutine.
type Engine struct {
	config   Config
	language *language
	builtIn  []*compiled
	tenants  sync.Map // access.Account to *tenant
	heavy    turns    // of decisions that look at very much
}

// Question is a decision to be explained or tried.
type Question struct {
	Caller access.Caller
	Action access.Action
	Facts  access.Facts
	Time   time.Time // zero: now
}

// Severity is how bad a problem is.
type Severity string

// The severities.
const (
	Error   Severity = "ERROR"   // the policy cannot be used
	Warning Severity = "WARNING" // it can, and may not do what its author means
)

// Problem is what is wrong with a policy.
type Problem struct {
	Policy   string // name, "" where a text was checked that has none
	Severity Severity
	Line     int // 1 is the first; 0 where it is of the whole text
	Column   int
	Message  string
}

// New makes an Engine. It fails only where the embedded schema or a built-in policy is wrong, which a test excludes.
func New(c Config) (*Engine, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	l, err := newLanguage()
	if err != nil {
		return nil, err
	}
	e := &Engine{config: c, language: l}
	for _, row := range e.BuiltIn() {
		p, err := l.compile(row)
		if err != nil {
			return nil, err
		}
		e.builtIn = append(e.builtIn, p)
	}
	return e, nil
}

// Schema returns the Cedar schema that policies are checked against.
func Schema() string { return schemaText }
