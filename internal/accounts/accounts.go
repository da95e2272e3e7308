// Package accounts keeps the tenants of one installation: who they are, whether they are served, and how much each may
// have.
//
// Security argument: an account is made, disabled and bounded by the root principals of the installation's own account
// and nobody else, and each time that is decided and recorded by the Guard. A disabled account is refused in the
// Guard's decider (Gate), which every operation passes, whatever authenticated the caller. Two accounts share nothing
// but the names that this package keeps.
package accounts

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// Account is one tenant.
type Account struct {
	ID       access.Account
	Name     string // unique in the installation
	Quotas   Quotas // as they were set: 0 is the server's default
	Disabled bool   // every call is refused
	Reason   string // why it is disabled, in somebody's words
	Version  int64  // compare-and-set, of name and quotas
	Created  time.Time
	Updated  time.Time
}

// Store keeps accounts.
type Store interface {
	// CreateAccount adds an account with its first principal and that one's first key, or, where root is nil, the account
	// alone. Conflict where the account or the name exists.
	CreateAccount(ctx context.Context, a Account, root *identity.NewRoot) error
	// Account is recent. NotFound where there is none.
	Account(ctx context.Context, id access.Account) (Account, error)
	// Accounts returns up to limit accounts with numbers after the given one, in their order.
	Accounts(ctx context.Context, after string, limit int) ([]Account, error)
	// SwapAccount replaces name and quotas where the version is still oldVersion, else it returns Conflict.
	SwapAccount(ctx context.Context, a Account, oldVersion int64) error
}

// People is what this package needs of the principals. *identity.Service has it.
type People interface {
	NewRoot(ctx context.Context, account access.Account) (identity.NewRoot, secret.Text, error)
	ChangeStanding(ctx context.Context, account access.Account, kind identity.StandingKind, key string, change func(*identity.Standing)) (identity.Standing, error)
	RaiseEveryEpoch(ctx context.Context, account access.Account) error
}

// Config is what a Service needs. All but Defaults and Now are required.
type Config struct {
	Store     Store
	Standings Standings
	People    People
	Guard     *access.Guard
	Home      access.Account // the installation's own account: its root administers accounts
	Defaults  Quotas         // for accounts that have none of their own; 0 is no bound
	Now       func() time.Time
}

// Service administers accounts. Every method that takes a caller decides and records through the Guard itself.
type Service struct{ Config }

// New returns a Service.
func New(c Config) (*Service, error) {
	if c.Store == nil || c.Standings == nil || c.People == nil || c.Guard == nil || c.Home == "" {
		return nil, fault.New(fault.Internal, "accounts need a store, standings, principals, a guard and the installation's account")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{c}, nil
}

// EnsureHome makes sure that the installation's own account has its row. It is for the start of the server, and
// idempotent.
func (s *Service) EnsureHome(ctx context.Context) error {
	_, err := s.Store.Account(ctx, s.Home)
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	now := s.Now()
	err = s.Store.CreateAccount(ctx, Account{ID: s.Home, Name: string(s.Home), Version: 1, Created: now, Updated: now}, nil)
	if errors.Is(err, fault.Conflict) { // another replica was first
		return nil
	}
	return err
}

// NewAccount says what account to create.
type NewAccount struct {
	ID     access.Account // 12 digits; "" takes a free number
	Name   string         // 1 to 128 of A-Z a-z 0-9 _ . @ -
	Quotas Quotas
}

// Created is an account with the key of its root principal, whose secret is shown this once.
type Created struct {
	Account
	Key    identity.AccessKey
	Secret secret.Text
}

// createTries is how often another number is drawn where one is taken.
const createTries = 5

// Create makes an account, its principal root and a first key, in one step. A number or name that exists is a Conflict.
func (s *Service) Create(ctx context.Context, caller access.Caller, n NewAccount) (Created, error) {
	if err := s.permit(ctx, caller, access.CreateAccount, access.Facts{Resource: "account/" + string(n.ID), Detail: "name: " + n.Name}); err != nil {
		return Created{}, err
	}
	if err := n.Quotas.check(); err != nil {
		return Created{}, err
	}
	for try := 1; ; try++ {
		id := n.ID
		if id == "" {
			id = drawNumber()
		}
		made, err := s.create(ctx, id, n)
		if errors.Is(err, fault.Conflict) && n.ID == "" && try < createTries && !s.named(ctx, n.Name) {
			continue
		}
		return made, err
	}
}

func (s *Service) create(ctx context.Context, id access.Account, n NewAccount) (Created, error) {
	if id == s.Home {
		return Created{}, fault.New(fault.Conflict, "account %s is the installation's own and exists already", id)
	}
	root, secretKey, err := s.People.NewRoot(ctx, id)
	if err != nil {
		return Created{}, err
	}
	now := s.Now()
	a := Account{ID: id, Name: n.Name, Quotas: n.Quotas, Version: 1, Created: now, Updated: now}
	if err := s.Store.CreateAccount(ctx, a, &root); err != nil {
		return Created{}, err
	}
	root.Key.Secret = nil
	return Created{Account: a, Key: root.Key, Secret: secretKey}, nil
}

// named reports whether some account has the name, or it cannot be known.
func (s *Service) named(ctx context.Context, name string) bool {
	for after := ""; ; {
		found, err := s.Store.Accounts(ctx, after, maxPage)
		if err != nil {
			return true
		}
		for _, a := range found {
			if a.Name == name {
				return true
			}
			after = string(a.ID)
		}
		if len(found) < maxPage {
			return false
		}
	}
}

// drawNumber returns a random number that does not begin with 0, as AWS's.
func drawNumber() access.Account {
	n, err := rand.Int(rand.Reader, big.NewInt(900_000_000_000))
	if err != nil {
		panic(err) // the reader of crypto/rand never fails
	}
	return access.Account(fmt.Sprint(100_000_000_000 + n.Int64()))
}

const (
	maxPage     = 100
	defaultPage = 20
)

// Accounts lists by number. The cursor is "" on the last page.
func (s *Service) Accounts(ctx context.Context, caller access.Caller, after string, limit int) ([]Account, string, error) {
	if err := s.permit(ctx, caller, access.ListAccounts, access.Facts{}); err != nil {
		return nil, "", err
	}
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	found, err := s.Store.Accounts(ctx, after, limit+1)
	if err != nil || len(found) <= limit {
		return found, "", err
	}
	return found[:limit], string(found[limit-1].ID), nil
}

// swapTries is how often SetQuotas begins again because somebody else was first.
const swapTries = 5

// SetQuotas replaces the quotas of an account, all of them. They hold within a second; what the account has already it
// keeps.
func (s *Service) SetQuotas(ctx context.Context, caller access.Caller, id access.Account, q Quotas) (Account, error) {
	facts := access.Facts{Resource: "account/" + string(id), Detail: "quotas: " + q.String()}
	if err := s.permit(ctx, caller, access.UpdateAccount, facts); err != nil {
		return Account{}, err
	}
	if err := q.check(); err != nil {
		return Account{}, err
	}
	for try := 1; ; try++ {
		a, err := s.Store.Account(ctx, id)
		if err != nil {
			return Account{}, err
		}
		old := a.Version
		a.Quotas, a.Version, a.Updated = q, old+1, s.Now()
		err = s.Store.SwapAccount(ctx, a, old)
		if err == nil || !errors.Is(err, fault.Conflict) || try == swapTries {
			return a, err
		}
	}
}

// Disable refuses every call of an account, whatever authenticates it, within two seconds on every server. Its workload
// access tokens stay dead when it is enabled again. The installation's own account cannot be disabled: nobody could
// undo it.
func (s *Service) Disable(ctx context.Context, caller access.Caller, id access.Account, reason string) (Account, error) {
	a, err := s.move(ctx, caller, access.DisableAccount, id, reason, identity.Disable(reason))
	if err != nil {
		return a, err
	}
	return a, s.People.RaiseEveryEpoch(ctx, id)
}

// Enable serves a disabled account again.
func (s *Service) Enable(ctx context.Context, caller access.Caller, id access.Account) (Account, error) {
	return s.move(ctx, caller, access.EnableAccount, id, "", identity.Enable)
}

func (s *Service) move(ctx context.Context, caller access.Caller, action access.Action, id access.Account, reason string, change func(*identity.Standing)) (Account, error) {
	if err := s.permit(ctx, caller, action, access.Facts{Resource: "account/" + string(id), Detail: reason}); err != nil {
		return Account{}, err
	}
	if id == s.Home {
		return Account{}, fault.Field("accountId", "account %s is the installation's own: disabled, nobody could enable it", id)
	}
	a, err := s.Store.Account(ctx, id)
	if err != nil {
		return Account{}, err
	}
	at, err := s.People.ChangeStanding(ctx, id, identity.AccountStanding, string(id), change)
	a.Disabled, a.Reason = at.Disabled, at.Reason
	return a, err
}

// permit lets root of the installation's own account through, and nobody else.
func (s *Service) permit(ctx context.Context, caller access.Caller, action access.Action, facts access.Facts) error {
	if caller.Has(access.Root) && caller.Account != s.Home {
		return s.Guard.Refuse(ctx, caller, action, "installation-only", facts,
			fault.New(fault.Denied, "%s needs the role root in the installation's own account", action))
	}
	return s.Guard.Permit(ctx, caller, action, facts)
}
