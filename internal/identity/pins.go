package identity

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/keyring"
	"github.com/tabard-id/tabard/internal/pace"
)

// PinStore keeps the origins of issuers' endpoints. They go with the issuer.
type PinStore interface {
	keyring.Pins
	// IssuerPins returns the origins by endpoint.
	IssuerPins(ctx context.Context, account access.Account, issuer string) (map[string]string, error)
	// RepinIssuer sets origins, whatever they were.
	RepinIssuer(ctx context.Context, account access.Account, issuer string, origins map[string]string) error
}

// readMetadata reads where the issuer's metadata leads now, and the origins of what it names besides a login client's.
func (s *Service) readMetadata(ctx context.Context, account access.Account, issuer string) (keyring.Metadata, map[string]string, error) {
	if s.metadata == nil {
		return keyring.Metadata{}, nil, fault.New(fault.Unavailable, "this server reads no metadata of issuers")
	}
	if wait := s.readings.Take(account, issuer); wait > 0 {
		return keyring.Metadata{}, nil, pace.Slow(wait, "the metadata of the issuer %s was read several times just now: try again in %d seconds", clip(issuer), int(wait.Seconds())+1)
	}
	m, err := s.metadata.IssuerMetadata(ctx, account, issuer, true)
	if err != nil {
		p := fault.Public(err)
		// Why it does not answer is in the log: the sentence tells no closed port from a refused address.
		about := fault.Wrap(p.Code, err, "the issuer %s: %s", clip(issuer), strings.Replace(p.Msg, "the provider's metadata", "its metadata", 1))
		about.Field, about.After = p.Field, p.After
		err = about
	}
	pins := map[string]string{}
	for name, address := range map[string]string{keyring.KeysPin: m.JWKS, keyring.UserInfoPin: m.UserInfo} {
		if o := keyring.Origin(address); o != "" {
			pins[name] = o
		}
	}
	return m, pins, err
}

// AcceptEndpoints accepts, for an issuer of users' or of workloads' tokens, the hosts that its metadata names now, in
// the place of those that are pinned (threat M08). Those of a login client stay: only SetIssuerLogin, which brings its
// secret again, changes them. An issuer that is disabled stays so; its standing is returned.
func (s *Service) AcceptEndpoints(ctx context.Context, caller access.Caller, issuer string) (Standing, error) {
	if err := s.guard.Permit(ctx, caller, access.EnableTrustedIssuer, access.Facts{Resource: clip(issuer)}); err != nil {
		return Standing{}, err
	}
	if err := s.repin(ctx, caller, issuer); err != nil {
		return Standing{}, err
	}
	return s.store.CurrentStanding(ctx, caller.Account, IssuerStanding, issuer)
}

// repin pins anew what is pinned of the issuer, to where its metadata leads now.
func (s *Service) repin(ctx context.Context, caller access.Caller, issuer string) error {
	have, err := s.store.IssuerPins(ctx, caller.Account, issuer)
	if err != nil {
		return err
	}
	if len(have) == 0 {
		return fault.New(fault.NotFound, "the issuer %s has no endpoints to accept: none was followed yet", clip(issuer))
	}
	m, pins, err := s.readMetadata(ctx, caller.Account, issuer)
	if err != nil {
		return err
	}
	if o := keyring.Origin(m.JWKS); o != "" {
		pins[keyring.WorkloadKeysPin] = o
	}
	maps.DeleteFunc(pins, func(name, _ string) bool { return have[name] == "" })
	facts := access.Facts{Resource: clip(issuer), Outcome: "pinned", Detail: said(pins)}
	if err := s.guard.Event(ctx, caller, access.EnableTrustedIssuer, facts).Wait(ctx); err != nil {
		return err
	}
	return s.store.RepinIssuer(ctx, caller.Account, issuer, pins)
}

// said lists origins for the trail.
func said(lists ...map[string]string) string {
	var words []string
	for _, pins := range lists {
		for _, name := range slices.Sorted(maps.Keys(pins)) {
			words = append(words, name+" "+pins[name])
		}
	}
	return strings.Join(words, ", ")
}
