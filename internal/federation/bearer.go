package federation

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/secret"
)

// PrincipalHeader names the principal that a bearer of a token means: its name, in the server's own account, or its
// role ARN.
const PrincipalHeader = "X-Tabard-Principal"

// How long a verified token is not verified again, and how many of an account are remembered.
const (
	rememberFor      = 60 * time.Second
	rememberReviewed = 10 * time.Second // what the issuer itself said about a token becomes old faster
	maxRemembered    = 1024
)

// Bearer returns the caller that a workload's own token stands for: the principal that role names, or without a name
// the only one that the account's rules lead to. Without an account it is the server's own. The errors are as for
// Assume; a token that stands for more than one principal is Denied in words that name the header. That a token was
// verified is remembered for a minute; whether issuer, rule and principal still stand is read each time, and may be one
// second old.
func (s *Service) Bearer(ctx context.Context, role Role, token secret.Text) (access.Caller, error) {
	if role.Account == "" {
		role.Account = s.Account
	}
	_, g, err := s.admit(ctx, role, token, true)
	if err != nil {
		return access.Caller{}, err
	}
	return callerOf(g, g.Rule.ID), nil
}

// remember says until when a verified token is not verified again.
func (s *Service) remember(v verified) time.Time {
	life := rememberFor
	if s.Reviewed(v.issuer.URL) {
		life = rememberReviewed
	}
	until := s.Now().Add(life)
	if v.expires.Before(until) {
		return v.expires
	}
	return until
}

// memory holds what was verified, by account and hash of the token. The zero memory is ready.
type memory struct {
	mu      sync.Mutex // guards entries
	entries map[access.Account]map[tokenID]remembered
}

type tokenID [sha256.Size]byte

type remembered struct {
	verified
	refused error // what the issuer's review came to, nil where the token is good
	until   time.Time
}

func idOf(token secret.Text) tokenID { return sha256.Sum256([]byte(token.Expose())) }

// get returns what is known of the token, where it was verified under this very issuer: one that was deleted and
// created again has another uid.
func (m *memory) get(account access.Account, token secret.Text, issuerUID string, now time.Time) (remembered, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[account][idOf(token)]
	return e, ok && e.issuer.UID == issuerUID && now.Before(e.until)
}

// put remembers. Where the account has too many, any one of them is forgotten: verifying again costs a signature.
func (m *memory) put(account access.Account, token secret.Text, e remembered) {
	id := idOf(token)
	m.mu.Lock()
	defer m.mu.Unlock()
	mine := m.entries[account]
	if mine == nil {
		if m.entries == nil {
			m.entries = map[access.Account]map[tokenID]remembered{}
		}
		mine = map[tokenID]remembered{}
		m.entries[account] = mine
	}
	if _, ok := mine[id]; !ok && len(mine) >= maxRemembered {
		for victim := range mine {
			delete(mine, victim)
			break
		}
	}
	mine[id] = e
}
