package identity

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// MaxActors is the deepest chain of agents that a token may have come through (threat B09).
const MaxActors = maxActors

// Through is a token that a workload identity got in exchange for another's.
type Through struct {
	Minted
	Workload Workload
	Actors   []string // names of the workload identities it came through, the latest first
}

// MintTokenThrough mints a token for the workload identity named, in exchange for the token that another handed on to
// it: for the same user and under the same delegation, if there is one, never for longer, and with the other one at the
// head of the chain of those it came through. What is kept of the user's own token stays behind: it was given for the
// other agent. A policy must name the other one (threat M07). A refusal for what the token or the workload identity is
// has a record of its own, behind that of the decision. Errors: Denied where the caller may not act for the workload
// identity or no policy allows it, and where the user's issuer is not trusted for it; NotFound; Invalid (Field
// "subject_token") where the token has no user, or is the workload identity's own, or came through too many;
// Unauthenticated as OpenToken, and where the token has expired.
func (s *Service) MintTokenThrough(ctx context.Context, caller access.Caller, subject secret.Text, workload string) (Through, error) {
	const action = access.ExchangeToken
	w, lookup := s.store.Workload(ctx, caller.Account, workload)
	target := Workload{Account: caller.Account, Name: workload}.ARN(s.region)
	facts := access.Facts{Workload: workload, WorkloadUID: w.UID, Resource: target}
	facts.Audience = target
	t, opened, err := s.openHandedOn(ctx, caller.Account, subject, w, facts)
	if err != nil {
		return Through{}, err
	}
	facts = t.Facts
	if len(facts.Through) > 0 {
		facts.Detail = "through " + strings.Join(facts.Through, ", ")
	}
	if d, decided := access.Gate(caller, action, facts); facts.From == "" && opened != nil && (!decided || d.Allow) {
		return Through{}, s.refuseThrough(ctx, caller, facts, opened) // it is nobody's, so no policy names whose it is
	}
	receipt, err := s.guard.Check(ctx, caller, action, facts)
	if err != nil {
		return Through{}, err
	}
	bad := cmp.Or(opened, lookup)
	if bad == nil {
		bad = s.handOn(ctx, t.Token, t.Workload, w)
	}
	if bad != nil {
		if err := receipt.Wait(ctx); err != nil {
			return Through{}, err
		}
		return Through{}, s.refuseThrough(ctx, caller, facts, bad)
	}
	b := tokenBody{user: t.User, expires: s.now().Add(TokenLife), authenticated: t.AuthTime, delegation: t.Delegation(),
		actors: append([]string{t.WorkloadUID}, t.Actors()...), claims: t.Claims, session: t.session}
	if t.Expires.Before(b.expires) {
		b.expires = t.Expires
	}
	m, err := s.mint(ctx, receipt, w, b)
	return Through{Minted: m, Workload: w, Actors: facts.Through}, s.refuseFallen(ctx, caller, action, facts, err)
}

// refuseThrough records why an exchange that the caller may make was refused, and returns what the caller may know of
// it. What failed is no refusal.
func (s *Service) refuseThrough(ctx context.Context, caller access.Caller, facts access.Facts, bad error) error {
	const action = access.ExchangeToken
	if _, ok := errors.AsType[*fallen](bad); ok {
		return Tell(caller, s.refuseFallen(ctx, caller, action, facts, bad))
	}
	rule := "subject-token"
	switch fault.CodeOf(bad) {
	case fault.Unauthenticated, fault.Invalid, fault.Denied:
	case fault.NotFound:
		rule = "workload-missing"
	default:
		return bad
	}
	facts.Outcome, facts.Detail = "refused", clip(fault.Public(bad).Msg)
	return s.guard.Refuse(ctx, caller, action, rule, facts, bad)
}

// handOn refuses what must not come of a token by handing it on, whatever a policy says.
func (s *Service) handOn(ctx context.Context, t Token, from, w Workload) error {
	const field = "subject_token"
	switch {
	case t.User.Kind == NoUser:
		return fault.Field(field, "has no user: mint a token of your own for %s instead", w.Name)
	case from.UID == w.UID:
		return fault.Field(field, "is one of %s already", w.Name)
	case len(t.Actors()) >= maxActors:
		return fault.Field(field, "came through %d workload identities, which is the most", maxActors)
	case t.Asserted() && !w.Assertable():
		return fault.New(fault.Denied, "the user of the token is asserted and not proven, which the workload identity %s does not accept", w.Name)
	case t.User.Kind != JWTUser:
		return nil
	}
	i, err := s.trusted(ctx, t.Account, t.User.Issuer)
	if errors.Is(err, fault.Unauthenticated) || err == nil && !i.allowedFor(w.Name) {
		return fault.New(fault.Denied, "the issuer of the user is not trusted for workload identity %s", w.Name)
	}
	return err
}

// Names returns the names of workload identities, or the uid where one is gone for good.
func (s *Service) Names(ctx context.Context, account access.Account, uids []string) ([]string, error) {
	names := make([]string, 0, len(uids))
	for _, uid := range uids {
		w, err := s.store.WorkloadByUID(ctx, account, uid)
		switch {
		case errors.Is(err, fault.NotFound):
			w.Name = uid
		case err != nil:
			return nil, err
		}
		names = append(names, w.Name)
	}
	return names, nil
}

// Pairwise is the user's subject for one audience (OIDC Core §8.1): always the same there, and of no use to compare
// with another audience's. It is pseudorandom under a key of the server.
func (s *Service) Pairwise(ctx context.Context, account access.Account, u User, audience string) (string, error) {
	data := appendField(appendField(nil, "pairwise subject 1"), audience)
	sub, err := s.vault.UserRef(ctx, append(data, u.namespace(account)...))
	return base64.RawURLEncoding.EncodeToString(sub), err
}

// Ground is what something that was made of a workload access token rests on: it is dead once the token would be.
type Ground struct {
	Workload   string // uid
	Generation int64
	UserRef    string // "" without a user
	Issuer     string // of the user, "" where no token proved the user
	Epochs     [3]int64
	Actors     []string
	Since      time.Time // when the token was minted

	// The sign-in of the user at an issuer with back-channel logout, "" for none, and its epoch.
	Session      string
	SessionEpoch int64
}

// Ground returns what t rests on. A token that was minted under a delegation has none: nothing is made of it that the
// delegation does not name.
func (t Token) Ground() (Ground, bool) {
	g := Ground{Workload: t.WorkloadUID, Generation: t.Generation, UserRef: t.UserRef, Issuer: t.User.Issuer,
		Epochs: [3]int64{t.epochs.workload, t.epochs.user, t.epochs.issuer}, Actors: slices.Clone(t.Actors()), Since: t.Issued,
		Session: t.session.key, SessionEpoch: t.session.epoch}
	return g, t.Delegation() == ""
}

// Holds reports whether what rests on g is still good: the workload identity lives, in its generation, and neither it
// nor the user, the user's issuer, the account or an agent in between was disabled, frozen or revoked since. It may be
// a second late.
func (s *Service) Holds(ctx context.Context, account access.Account, g Ground) (bool, error) {
	w, err := s.store.WorkloadByUID(ctx, account, g.Workload)
	if errors.Is(err, fault.NotFound) || err == nil && (!w.Deleted.IsZero() || w.Generation != g.Generation) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now, down, err := s.stand(ctx, w, User{Issuer: g.Issuer}, g.UserRef)
	if err != nil || down != nil {
		return false, err
	}
	if (epochs{g.Epochs[0], g.Epochs[1], g.Epochs[2]}).before(now) {
		return false, nil
	}
	if over, err := s.ended(ctx, account, signIn{g.Session, g.SessionEpoch}); err != nil || over {
		return false, err
	}
	err = s.actorsStand(ctx, account, g.Actors, g.Since)
	if errors.Is(err, fault.Unauthenticated) {
		return false, nil
	}
	return err == nil, err
}

// actorsStand returns an Unauthenticated fault where an agent that a token came through is down or deleted, or anything
// was changed about its standing since: a token of its own from then would be dead too, or may be.
func (s *Service) actorsStand(ctx context.Context, account access.Account, actors []string, since time.Time) error {
	for _, uid := range actors {
		w, err := s.store.WorkloadByUID(ctx, account, uid)
		if errors.Is(err, fault.NotFound) || err == nil && !w.Deleted.IsZero() {
			return fault.New(fault.Unauthenticated, "an agent that the workload access token came through was deleted")
		}
		if err != nil {
			return err
		}
		at, err := s.store.Standing(ctx, account, WorkloadStanding, uid)
		if err != nil {
			return err
		}
		if at.Down() || at.Epoch > 0 && at.Changed.After(since) {
			return fault.New(fault.Unauthenticated, "an agent that the workload access token came through was disabled or revoked")
		}
	}
	return nil
}

// IsToken reports whether a text is meant as a workload access token.
func IsToken(text secret.Text) bool { return strings.HasPrefix(text.Expose(), tokenPrefix) }
