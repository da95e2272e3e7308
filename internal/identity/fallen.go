package identity

import (
	"context"
	"errors"
	"fmt"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// fallen is the cause of a refusal because somebody is disabled or frozen. It knows more than everybody may be told.
type fallen struct {
	at       Standing
	workload string // name of the workload identity that was to act
}

// Error is for the operator.
func (f *fallen) Error() string { return f.known() }

// known is the sentence for a caller who may act for the workload identity.
func (f *fallen) known() string {
	switch f.at.Kind {
	case WorkloadStanding:
		return fmt.Sprintf("the agent %s is %s%s", f.workload, f.at.state(), f.at.because())
	case AccountStanding:
		return fmt.Sprintf("the account %s is %s", f.at.Account, f.at.state())
	case IssuerStanding:
		return fmt.Sprintf("the issuer %s is %s%s", clip(f.at.Key), f.at.state(), f.at.because())
	}
	return fmt.Sprintf("the user is %s%s", f.at.state(), f.at.because())
}

// unknown is the sentence for anybody who holds the token.
func (f *fallen) unknown() string {
	what := map[StandingKind]string{AccountStanding: "account", WorkloadStanding: "agent", IssuerStanding: "user's issuer", UserStanding: "user"}[f.at.Kind]
	return fmt.Sprintf("the %s of the workload access token is %s", what, f.at.state())
}

// Tell returns err with what caller may know of it: who is disabled and why is for callers that may act for the
// workload identity, and nobody else's business (threat A01).
func Tell(caller access.Caller, err error) error {
	f, ok := errors.AsType[*fallen](err)
	if !ok || !caller.Has(access.Root) && !caller.PairedWith(f.workload) {
		return err
	}
	return fault.Wrap(fault.CodeOf(err), f, "%s", f.known())
}

// stand returns the epochs of what a token of w for u rests on, and which of them is down, nil where none is.
func (s *Service) stand(ctx context.Context, w Workload, u User, ref string) (epochs, *fallen, error) {
	var now epochs
	for _, on := range []struct {
		kind  StandingKind
		key   string
		epoch *int64
	}{{AccountStanding, string(w.Account), new(int64)}, {WorkloadStanding, w.UID, &now.workload}, {UserStanding, ref, &now.user}, {IssuerStanding, u.Issuer, &now.issuer}} {
		if on.key == "" {
			continue
		}
		at, err := s.store.Standing(ctx, w.Account, on.kind, on.key)
		if err != nil {
			return epochs{}, nil, err
		}
		if at.Down() {
			return epochs{}, &fallen{at: at, workload: w.Name}, nil
		}
		*on.epoch = at.Epoch
	}
	return now, nil, nil
}

// before reports whether a token with the epochs e is from before one of now. A token with a higher epoch was minted by
// a replica that knew of a change which is still on its way to this one.
func (e epochs) before(now epochs) bool {
	return e.workload < now.workload || e.user < now.user || e.issuer < now.issuer
}

// Serves returns nil where the workload identity, the user and the user's issuer stand, else a Denied fault that names
// neither. It is for what a browser does in a consent session, where there is no workload access token: the user is
// known by the reference under which RememberUser stored it.
func (s *Service) Serves(ctx context.Context, account access.Account, workloadUID, userRef string) error {
	u, err := s.UserByRef(ctx, account, userRef)
	if errors.Is(err, fault.NotFound) {
		return fault.New(fault.Denied, "the user was erased")
	}
	if err != nil {
		return err
	}
	_, down, err := s.stand(ctx, Workload{Account: account, UID: workloadUID}, u, userRef)
	if err != nil || down == nil {
		return err
	}
	return fault.Wrap(fault.Denied, down, "%s", map[StandingKind]string{
		AccountStanding: "the account is ", WorkloadStanding: "the agent is ", IssuerStanding: "your identity provider is ", UserStanding: "you are ",
	}[down.at.Kind]+down.at.state())
}

// issuerStands returns an Unauthenticated fault where the issuer is disabled in the account.
func (s *Service) issuerStands(ctx context.Context, account access.Account, url string) error {
	at, err := s.store.Standing(ctx, account, IssuerStanding, url)
	if err != nil || !at.Down() {
		return err
	}
	return badToken("is of the issuer %q, which is %s here%s", clip(url), at.state(), at.because())
}
