package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Opened is what a workload access token stands for: whose it is, and all that a decision is made on because of it.
type Opened struct {
	Token
	Workload Workload
	Facts    access.Facts
}

// Open opens a workload access token for an operation of the caller. It is the only way to use one (threat M06): it
// refuses and records what is dead, and adds to the facts of the operation all that the token says: the workload
// identity, the user and how the user is known, and the agents that it came through. Whoever uses the answer must be
// allowed the workload identity: the decision is the operation's own, made with these facts. With polls an expired
// token is no error (see Token.Expired): it may poll the session that it opened.
//
// Errors: Unauthenticated where the token is damaged, of another server or account, expired or revoked, where its
// agent, its user or the user's issuer is disabled (what the caller may know of that is in it, threat B02) and where
// its delegation is over; Denied where it is expired and the caller may not act for the workload identity.
func (s *Service) Open(ctx context.Context, caller access.Caller, a access.Action, wat secret.Text, f access.Facts, polls bool) (Opened, error) {
	t, w, err := s.openToken(ctx, caller.Account, wat)
	if errors.Is(err, fault.Unauthenticated) {
		return Opened{}, s.guard.Refuse(ctx, caller, a, "token-refused", f, Tell(caller, err))
	}
	if err != nil {
		return Opened{}, err
	}
	f.Workload, f.WorkloadUID = w.Name, w.UID
	t.fill(&f, w, t.Through())
	if !t.Expired || polls {
		return Opened{t, w, f}, nil
	}
	if d, decided := access.Gate(caller, a, f); decided && !d.Allow {
		if err := s.guard.Permit(ctx, caller, a, f); err != nil {
			return Opened{}, err
		}
	}
	f.Outcome = "refused"
	return Opened{}, s.guard.Refuse(ctx, caller, a, "token-expired", f, ErrExpired())
}

// openHandedOn opens a token for the agent that it was handed on to, w, and returns the facts of the exchange: of w,
// the user of the token, and the agents that it came through, the one that handed it on first. The second error says
// that nothing can be known. The first says why the token is not good; it is recorded behind the decision, which only a
// caller passes that may act for w and may take what the agent hands on. From is "" only where the token does not open,
// or its agent is gone for good.
func (s *Service) openHandedOn(ctx context.Context, account access.Account, wat secret.Text, w Workload, f access.Facts) (o Opened, bad, err error) {
	t, from, bad := s.openToken(ctx, account, wat)
	if bad != nil && !errors.Is(bad, fault.Unauthenticated) {
		return Opened{}, nil, bad
	}
	if bad == nil && t.Expired {
		bad = fault.New(fault.Unauthenticated, "the workload access token has expired: the agent that handed it on mints a new one")
	}
	var through []string
	if from.Name != "" {
		through = append([]string{from.Name}, t.Through()...)
		f.From = from.Name
	}
	t.fill(&f, w, through)
	return Opened{t, from, f}, bad, nil
}

// fill adds what the token says of its user and of its way to the facts of an operation of w.
func (t Token) fill(f *access.Facts, w Workload, through []string) {
	f.UserRef, f.Asserted, f.Assertable = t.UserRef, t.Asserted(), w.Assertable()
	f.User, f.Through = t.UserFacts(), through
}

// ErrExpired says that a workload access token is too old for what was asked.
func ErrExpired() error {
	return fault.New(fault.Unauthenticated, "the workload access token has expired: mint a new one")
}

// openToken opens a token and finds its workload identity, alive and of the same generation, and all that it rests on.
// Expiry is no error here. Whatever else is wrong with the token is an Unauthenticated fault; the workload identity of
// one that opened and is dead is returned beside the fault.
func (s *Service) openToken(ctx context.Context, account access.Account, wat secret.Text) (Token, Workload, error) {
	sealed, err := decodeToken(wat)
	if err != nil {
		return Token{}, Workload{}, err
	}
	plain, err := s.vault.OpenServer(ctx, vault.RingTokens, s.tokenContext(account), sealed)
	if errors.Is(err, vault.ErrOpen) {
		return Token{}, Workload{}, unopened()
	}
	if err != nil {
		return Token{}, Workload{}, err
	}
	b, err := decodeTokenBody(plain)
	if err != nil {
		return Token{}, Workload{}, err
	}
	w, err := s.store.WorkloadByUID(ctx, account, b.workload)
	switch {
	case errors.Is(err, fault.NotFound):
		return Token{}, Workload{}, fault.New(fault.Unauthenticated, "the workload identity of the workload access token does not exist any more")
	case err != nil:
		return Token{}, Workload{}, err
	case !w.Deleted.IsZero():
		return Token{}, w, fault.New(fault.Unauthenticated, "the workload identity of the workload access token was deleted")
	case w.Generation != b.generation:
		return Token{}, w, fault.New(fault.Unauthenticated, "the workload access token is from before its workload identity was deleted")
	}
	ref, err := s.UserRef(ctx, account, b.user)
	if err != nil {
		return Token{}, w, err
	}
	now, down, err := s.stand(ctx, w, b.user, ref)
	switch {
	case err != nil:
		return Token{}, w, err
	case down != nil:
		return Token{}, w, fault.Wrap(fault.Unauthenticated, down, "%s", down.unknown())
	case b.epochs.before(now):
		return Token{}, w, fault.New(fault.Unauthenticated, "the workload access token was revoked: mint a new one")
	}
	if over, err := s.ended(ctx, account, b.session); err != nil {
		return Token{}, w, err
	} else if over {
		return Token{}, w, fault.New(fault.Unauthenticated, "the user has signed out, and the workload access token ended with that")
	}
	if err := s.shorten(ctx, account, &b); err != nil {
		return Token{}, w, err
	}
	lineage := b.lineage()
	if lineage != nil {
		if lineage.grants, err = s.checkDelegation(ctx, account, b, ref); err != nil {
			return Token{}, w, err
		}
		if err := s.actorsStand(ctx, account, b.actors, b.issued); err != nil {
			return Token{}, w, err
		}
		if lineage.through, err = s.Names(ctx, account, b.actors); err != nil {
			return Token{}, w, err
		}
	}
	sum := sha256.Sum256([]byte(wat.Expose()))
	return Token{
		Account: account, WorkloadUID: b.workload, Generation: b.generation, User: b.user, UserRef: ref,
		Issued: b.issued, Expires: b.expires, Expired: !s.now().Before(b.expires), Hash: hex.EncodeToString(sum[:]),
		AuthTime: b.authenticated, Claims: b.claims, epochs: b.epochs, session: b.session, retained: b.retained, lineage: lineage,
	}, w, nil
}

// unopened is the one answer to a token that is damaged, or of another server or account: they cannot be told apart.
func unopened() error {
	return fault.New(fault.Unauthenticated, "the workload access token does not open: it is damaged, or of another server or account")
}

func decodeToken(wat secret.Text) ([]byte, error) {
	text := wat.Expose()
	if len(text) > maxToken {
		return nil, fault.New(fault.Unauthenticated, "the workload access token is longer than any of this server")
	}
	if !strings.HasPrefix(text, tokenPrefix) {
		return nil, fault.New(fault.Unauthenticated, "the value given as workload access token is none: it does not begin with %s", tokenPrefix)
	}
	sealed, err := jws.DecodeBase64(text[len(tokenPrefix):])
	if err != nil {
		return nil, unopened()
	}
	return sealed, nil
}
