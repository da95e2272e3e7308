package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// Anew says behind which checkpoint of a revoked key a series begins. The checkpoints of the series repeat it. It is
// signed with the new key: what the series takes over from before, the base of a pruned trail, it takes over by hash.
type Anew struct {
	Key     string `json:"key"`     // the id of the revoked key
	Revoked int64  `json:"revoked"` // when it was, in milliseconds
	Number  int64  `json:"number"`  // the last checkpoint of that key
	Hash    string `json:"hash"`
}

// String is what verifying says of it.
func (a Anew) String() string {
	return fmt.Sprintf("checkpoints up to number %d are by a key that was revoked at %s, and prove nothing: what was written until then may have been "+
		"changed before checkpoint %d was made; everything that it and later ones cover is proven since", a.Number, time.UnixMilli(a.Revoked).UTC().Format(time.RFC3339), a.Number+1)
}

// Last says which checkpoint of the account is the last and which key signed it, for the record of that key's
// revocation.
func (s *Service) Last(ctx context.Context, account access.Account) (string, error) {
	c, _, err := s.lastOf(ctx, account)
	switch {
	case err != nil:
		return "", err
	case c.Number == 0:
		return "no checkpoint yet", nil
	}
	return fmt.Sprintf("last checkpoint %d, %s, of key %.64s", c.Number, c.ID, keyOf(c.Token)), nil
}

// Begin makes the first checkpoint of the series behind a revoked key, for an account. Tick does it for the others.
func (s *Service) Begin(ctx context.Context, account access.Account) error {
	_, err := s.advance(ctx, account)
	return err
}

// revoked reports whether c, which is what lastOf returned with last, is by a revoked key.
func (c Claims) revoked(last Checkpoint) bool {
	return c.Anew != nil && last.Number > 0 && c.Anew.Number == last.Number
}

// readOrBegin is read, and for a checkpoint whose key was revoked what it says, unproven, with the Anew of a series
// that begins behind it. A key that is unknown and not revoked stays an error: then the checkpoint is a forgery.
func (s *Service) readOrBegin(ctx context.Context, c Checkpoint) (Checkpoint, Claims, error) {
	read, claims, err := s.read(ctx, c)
	if err == nil {
		return read, claims, nil
	}
	at, revoked := s.revokedAt(ctx, c.Token)
	if !revoked {
		return read, claims, err
	}
	claims, err = unproven(c.Token)
	if err == nil && (claims.Account != string(c.Account) || claims.Number != c.Number || HashOf(c.Token) != c.Hash) {
		err = fault.New(fault.Internal, "checkpoint %d is another than its row says", c.Number)
	}
	claims.Anew = &Anew{Key: keyOf(c.Token), Revoked: at.UnixMilli(), Number: c.Number, Hash: ref(c.Token)}
	return c, claims, err
}

// revokedAt says when the key of a token was revoked.
func (s *Service) revokedAt(ctx context.Context, token string) (at time.Time, ok bool) {
	keys, err := s.Signer.Revoked(ctx)
	if err != nil {
		return at, false // then nothing begins anew
	}
	at, ok = keys[keyOf(token)]
	return at, ok
}

// endedAgain is the running hash over the writers that ended, from what the database has now. It begins with what was
// pruned, whose checkpoint the base names by hash.
func (s *Service) endedAgain(ctx context.Context, account access.Account, before Claims) (Closed, error) {
	sum := Closed{}
	if before.Base != nil {
		base, err := s.inherited(ctx, account, *before.Base)
		if err != nil {
			return sum, err
		}
		sum = base.Closed
	}
	for {
		list, err := s.Trail.ClosedWriters(ctx, account, sum.Count, page)
		if err != nil {
			return sum, err
		}
		for _, w := range list {
			if sum, err = sum.add(w); err != nil {
				return sum, err
			}
			sum.Count = w.Closed // where some before it are gone, verifying says so
		}
		if len(list) < page {
			break
		}
	}
	if sum.Count < before.Closed.Count || sum.Count == before.Closed.Count && sum.Hash != before.Closed.Hash {
		s.Alarm(account, "writers that ended, which the last checkpoint of the revoked key lists, were removed or changed")
	}
	return sum, nil
}

// inherited returns the claims of the checkpoint that a verified one names by hash. Its own key may have been revoked
// since: what it says is fixed by the hash.
func (s *Service) inherited(ctx context.Context, account access.Account, r Ref) (Claims, error) {
	c, err := s.byRef(ctx, account, r)
	if err != nil {
		return Claims{}, err
	}
	if _, revoked := s.revokedAt(ctx, c.Token); revoked {
		return unproven(c.Token)
	}
	return s.open(ctx, account, c.Token)
}

// unproven is what a token says, without its signature.
func unproven(token string) (Claims, error) {
	var c Claims
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(token) > maxToken || len(parts) != 3 {
		return c, fault.New(fault.Invalid, "the checkpoint is no signed token (JWS, compact form)")
	}
	b, err := decodePart(parts[1])
	if err != nil {
		return c, fault.New(fault.Invalid, "the checkpoint is no signed token: part 2 is not base64url")
	}
	return claimsOf(b)
}

// keyOf is the id of the key that a token names, "" where it names none.
func keyOf(token string) string {
	head, _, _ := strings.Cut(strings.TrimSpace(token), ".")
	var header struct {
		Kid string `json:"kid"`
	}
	if b, err := decodePart(head); err == nil && len(b) <= maxToken {
		_ = json.Unmarshal(b, &header) // what cannot be read names none
	}
	return header.Kid
}
