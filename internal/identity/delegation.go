package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

const (
	// MaxDelegation is how far ahead a delegation may end, where the configuration says nothing else.
	MaxDelegation = 90 * 24 * time.Hour

	// maxDelegations bounds the delegations of a user to a workload identity that live at a time.
	maxDelegations = 100

	// touchEvery is how exact LastUsed is: a job that mints often does not write often.
	touchEvery = time.Minute
)

// Delegation is what a user allows an agent while the user is away: certain providers and scopes, until a time. While
// it lives the agent's principal mints workload access tokens for the user without a token of the user's.
type Delegation struct {
	Account      access.Account
	ID           string
	Workload     string // uid
	WorkloadName string // set by reads
	UserRef      string
	Issuer       string // of the user
	Grants       []Grant
	Note         vault.Sealed // the user's words
	Until        time.Time
	UserEpoch    int64 // the user's and the issuer's when it was made: once one has risen it is over
	IssuerEpoch  int64
	CreatedBy    string // name of the principal
	Created      time.Time
	Ended        time.Time // zero while nobody has ended it
	LastUsed     time.Time // the last mint, to the minute; zero before the first
}

// Grant is a provider of a delegation. Scopes are all that a token of it may have: none means tokens without scopes,
// and API keys.
type Grant struct {
	Provider string       `json:"provider"` // name
	Kind     ProviderKind `json:"kind"`     // a name may be of a provider of each kind; "" in a request is the only one there is
	UID      string       `json:"uid"`      // of the provider that had the name: another of that name is not meant
	Scopes   []string     `json:"scopes"`
}

// ProviderKind is a kind of credential provider.
type ProviderKind string

// Values of ProviderKind, as on the wire of the API.
const (
	OAuth2Kind ProviderKind = "OAUTH2"
	APIKeyKind ProviderKind = "API_KEY"
)

// DelegationState says whether a delegation is good for anything.
type DelegationState string

// Values of DelegationState.
const (
	DelegationActive  DelegationState = "ACTIVE"
	DelegationEnded   DelegationState = "ENDED"
	DelegationExpired DelegationState = "EXPIRED"
)

// DelegationFilter selects delegations: those that all the given members select.
type DelegationFilter struct {
	Workload string // uid
	UserRef  string
	Provider string // name
}

// DelegationStore keeps delegations.
type DelegationStore interface {
	// CreateDelegation returns Throttled where the user has max delegations to the workload identity that live at
	// d.Created.
	CreateDelegation(ctx context.Context, d Delegation, max int) error
	// Delegation is recent.
	Delegation(ctx context.Context, account access.Account, id string) (Delegation, error)
	// Delegations returns up to limit delegations with ids after the given one, ordered by id.
	Delegations(ctx context.Context, account access.Account, f DelegationFilter, after string, limit int) ([]Delegation, error)
	// EndDelegation sets Ended where it is zero, and returns the row.
	EndDelegation(ctx context.Context, account access.Account, id string, at time.Time) (Delegation, error)
	// EndDelegations does so with each that lives at the time, and returns how many. It forgets the notes of all that f
	// selects, also of those that were over.
	EndDelegations(ctx context.Context, account access.Account, f DelegationFilter, at time.Time) (int, error)
	// TouchDelegation sets LastUsed where it is before.
	TouchDelegation(ctx context.Context, account access.Account, id string, at time.Time) error
}

// ProviderNames knows which credential providers there are. *broker.Broker has it.
type ProviderNames interface {
	// ProviderUIDs returns the uids of the providers of the name, by kind; none if there is none.
	ProviderUIDs(ctx context.Context, account access.Account, name string) (map[ProviderKind]string, error)
}

// NewDelegation says what delegation to make.
type NewDelegation struct {
	Workload string      // name
	JWT      secret.Text // the user's own
	Grants   []Grant     // names and scopes
	Until    time.Time
	Note     string
}

// DelegationView is a delegation as it stands, for people.
type DelegationView struct {
	Delegation
	State DelegationState
	Note  string
}

// CreateDelegation makes a delegation of the user whom the JWT proves, for an application that is paired with the
// workload identity. Errors: Denied, also where the user or the agent is disabled; NotFound for an unknown workload
// identity or provider; Invalid where it would end too late or says a provider twice; Unauthenticated as VerifyUser;
// Throttled where the user has as many already as there may be.
func (s *Service) CreateDelegation(ctx context.Context, caller access.Caller, n NewDelegation, providers ProviderNames) (DelegationView, error) {
	const action = access.CreateDelegation
	receipt, w, err := s.checkMint(ctx, caller, action, n.Workload, User{})
	if err != nil {
		return DelegationView{}, err
	}
	if err := receipt.Wait(ctx); err != nil {
		return DelegationView{}, err
	}
	facts := access.Facts{Workload: w.Name, WorkloadUID: w.UID}
	verified, ref, err := s.presented(ctx, caller, action, facts, w.Name, n.JWT)
	if err != nil {
		return DelegationView{}, err
	}
	facts.UserRef = ref
	now, down, err := s.stand(ctx, w, verified.User, ref)
	if err != nil {
		return DelegationView{}, err
	}
	if _, err := s.signedIn(ctx, caller.Account, verified.proof); err != nil { // once more, as in mint
		return DelegationView{}, err
	}
	if down != nil {
		return DelegationView{}, s.refuseFallen(ctx, caller, action, facts, fault.Wrap(fault.Denied, down, "%s", down.known()))
	}
	d := Delegation{
		Account: caller.Account, ID: newID("dlg-"), Workload: w.UID, WorkloadName: w.Name, UserRef: ref, Issuer: verified.Issuer, Until: n.Until,
		UserEpoch: now.user, IssuerEpoch: now.issuer, CreatedBy: caller.Name, Created: s.now(),
	}
	if err := s.checkUntil(n.Until); err != nil {
		return DelegationView{}, err
	}
	if d.Grants, err = resolve(ctx, caller.Account, n.Grants, providers); err != nil {
		return DelegationView{}, err
	}
	if n.Note != "" {
		if d.Note, err = s.vault.Seal(ctx, d.noteRef(), secret.New(n.Note)); err != nil {
			return DelegationView{}, err
		}
	}
	if err := s.RememberUser(ctx, caller.Account, verified.User); err != nil {
		return DelegationView{}, err
	}
	if err := s.store.CreateDelegation(ctx, d, maxDelegations); err != nil {
		return DelegationView{}, err
	}
	facts.Resource, facts.Outcome, facts.Detail = "delegation/"+d.ID, "created", clip(d.summary())
	return DelegationView{Delegation: d, State: DelegationActive, Note: n.Note}, s.guard.Event(ctx, caller, action, facts).Wait(ctx)
}

// presented returns the user whom a JWT proves for the workload identity, and the reference. A JWT that is turned away
// is recorded.
func (s *Service) presented(ctx context.Context, caller access.Caller, action access.Action, facts access.Facts, workload string, jwt secret.Text) (VerifiedUser, string, error) {
	verified, err := s.VerifyUser(ctx, caller.Account, workload, jwt)
	if errors.Is(err, fault.Unauthenticated) || errors.Is(err, fault.Invalid) {
		facts.Outcome, facts.Detail = "refused", clip(fault.Public(err).Msg)
		return VerifiedUser{}, "", s.guard.Refuse(ctx, caller, action, "user-token", facts, err)
	}
	if err != nil {
		return VerifiedUser{}, "", err
	}
	ref, err := s.UserRef(ctx, caller.Account, verified.User)
	return verified, ref, err
}

func (s *Service) checkUntil(until time.Time) error {
	now := s.now()
	if !until.After(now) {
		return fault.Field("until", "has passed already")
	}
	if until.After(now.Add(s.maxDelegation)) {
		return fault.Field("until", "is too far ahead: a delegation ends within %d days", int(s.maxDelegation/(24*time.Hour)))
	}
	return nil
}

// resolve finds the providers of the grants.
func resolve(ctx context.Context, account access.Account, grants []Grant, providers ProviderNames) ([]Grant, error) {
	out := make([]Grant, 0, len(grants))
	for i, g := range grants {
		uids, err := providers.ProviderUIDs(ctx, account, g.Provider)
		if err != nil {
			return nil, err
		}
		if g.Kind == "" {
			for kind := range uids {
				g.Kind = kind
			}
			if len(uids) > 1 {
				return nil, fault.Field(fmt.Sprintf("grants[%d].providerKind", i),
					"is needed: %s is the name of an OAuth2 provider and of an API-key provider, so say %s or %s", clip(g.Provider), OAuth2Kind, APIKeyKind)
			}
		}
		if g.UID = uids[g.Kind]; g.UID == "" {
			return nil, fault.New(fault.NotFound, "credential provider %q does not exist", clip(g.Provider))
		}
		if g.Kind == APIKeyKind && len(g.Scopes) > 0 {
			return nil, fault.Field(fmt.Sprintf("grants[%d].scopes", i), "an API key has no scopes")
		}
		if slices.ContainsFunc(out, func(had Grant) bool { return had.UID == g.UID }) {
			return nil, fault.Field(fmt.Sprintf("grants[%d].providerName", i), "%s is granted twice: put its scopes into one grant", clip(g.Provider))
		}
		g.Scopes = slices.Clone(g.Scopes)
		out = append(out, g)
	}
	return out, nil
}

// summary names what is granted, for the trail.
func (d Delegation) summary() string {
	text := "until " + d.Until.UTC().Format(time.RFC3339) + ":"
	for _, g := range d.Grants {
		text += fmt.Sprintf(" %s %q", g.Provider, g.Scopes)
	}
	return text
}

func (d Delegation) noteRef() vault.Ref {
	return vault.Ref{Account: d.Account, Table: "delegations", Column: "note", Key: d.ID, Workload: d.Workload, User: d.UserRef}
}

// state is how the delegation stands now. Whoever disables or revokes the user or the user's issuer ends it.
func (s *Service) state(ctx context.Context, d Delegation) (DelegationState, error) {
	switch {
	case !d.Ended.IsZero():
		return DelegationEnded, nil
	case !s.now().Before(d.Until):
		return DelegationExpired, nil
	}
	user, err := s.store.Standing(ctx, d.Account, UserStanding, d.UserRef)
	if err != nil {
		return "", err
	}
	issuer, err := s.store.Standing(ctx, d.Account, IssuerStanding, d.Issuer)
	if err != nil {
		return "", err
	}
	if user.Epoch > d.UserEpoch || issuer.Epoch > d.IssuerEpoch {
		return DelegationEnded, nil
	}
	return DelegationActive, nil
}

func noDelegation(id string) error {
	return fault.New(fault.NotFound, "delegation %q does not exist", clip(id))
}

func overDelegation(code fault.Code, d Delegation, state DelegationState) error {
	if state == DelegationExpired {
		return fault.New(code, "the delegation %s expired at %s: the user has to delegate again", d.ID, d.Until.UTC().Format(time.RFC3339))
	}
	return fault.New(code, "the delegation %s has ended: the user has to delegate again", d.ID)
}

// MintTokenForDelegation mints a token for the user of the delegation. It ends after TokenLife or with the delegation,
// whichever is sooner, releases only what the delegation grants, and keeps no token of the user's. Errors: Denied where
// the caller may not act for the workload identity, and where the delegation is over, or the user or the agent
// disabled; NotFound where the workload identity has no such delegation.
func (s *Service) MintTokenForDelegation(ctx context.Context, caller access.Caller, workloadName, id string) (Minted, error) {
	const action = access.GetWorkloadAccessTokenForDelegation
	w, lookup := s.store.Workload(ctx, caller.Account, workloadName)
	facts := access.Facts{Workload: workloadName, Resource: "delegation/" + clip(id)}
	var d Delegation
	var user User
	if lookup == nil {
		facts.WorkloadUID = w.UID
		if d, user, lookup = s.delegationOf(ctx, w, id); lookup == nil {
			facts.UserRef, facts.User = d.UserRef, access.UserFacts{Issuer: user.Issuer, Subject: user.Subject}
		}
	}
	if lookup != nil {
		facts.Outcome = "not_found"
	}
	receipt, err := s.guard.Check(ctx, caller, action, facts)
	if err != nil {
		return Minted{}, err
	}
	if lookup != nil {
		if err := receipt.Wait(ctx); err != nil {
			return Minted{}, err
		}
		return Minted{}, lookup
	}
	state, err := s.state(ctx, d)
	if err != nil {
		return Minted{}, err
	}
	now := s.now()
	if state != DelegationActive {
		facts.Outcome = "refused"
		return Minted{}, s.guard.Refuse(ctx, caller, action, "delegation-over", facts, overDelegation(fault.Denied, d, state))
	}
	if now.Sub(d.LastUsed) >= touchEvery {
		if err := s.store.TouchDelegation(ctx, d.Account, d.ID, now); err != nil {
			return Minted{}, err
		}
	}
	expires := now.Add(TokenLife)
	if d.Until.Before(expires) {
		expires = d.Until
	}
	m, err := s.mint(ctx, receipt, w, tokenBody{user: user, expires: expires, delegation: d.ID})
	return m, s.refuseFallen(ctx, caller, action, facts, err)
}

// delegationOf finds a delegation of the workload identity and its user. One of another looks like none, and so does
// one whose user was erased.
func (s *Service) delegationOf(ctx context.Context, w Workload, id string) (Delegation, User, error) {
	d, err := s.store.Delegation(ctx, w.Account, id)
	if errors.Is(err, fault.NotFound) || err == nil && d.Workload != w.UID {
		return Delegation{}, User{}, noDelegation(id)
	}
	if err != nil {
		return Delegation{}, User{}, err
	}
	user, err := s.UserByRef(ctx, w.Account, d.UserRef)
	if errors.Is(err, fault.NotFound) {
		return Delegation{}, User{}, noDelegation(id)
	}
	return d, user, err
}

// checkDelegation returns what the delegation that a token was minted under grants, and an Unauthenticated fault where
// it is over. An agent that the token was passed on to, and exchanged by, is not the one of the delegation, but came
// through it.
func (s *Service) checkDelegation(ctx context.Context, account access.Account, b tokenBody, ref string) ([]Grant, error) {
	if b.delegation == "" {
		return nil, nil
	}
	d, err := s.store.Delegation(ctx, account, b.delegation)
	if errors.Is(err, fault.NotFound) || err == nil && (d.UserRef != ref || d.Workload != b.workload && !slices.Contains(b.actors, d.Workload)) {
		return nil, fault.New(fault.Unauthenticated, "the delegation of the workload access token does not exist any more")
	}
	if err != nil {
		return nil, err
	}
	state, err := s.state(ctx, d)
	if err != nil {
		return nil, err
	}
	if state != DelegationActive {
		return nil, overDelegation(fault.Unauthenticated, d, state)
	}
	return d.Grants, nil
}
