package signing

import (
	"context"
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
)

// Audit signs statements: checkpoints of the trail and receipts of revocations. They are kept for years, so unlike a
// token's key theirs is published for ever.
const Audit Purpose = "audit"

// State returns the compact form of a JWT of the type typ with the claims, signed for the purpose Audit, to which it
// adds iss. A statement does not expire and is no secret. Claims that have an iss are Internal; other errors are as for
// Sign.
func (s *Service) State(ctx context.Context, typ string, claims map[string]any) (string, error) {
	if _, has := claims["iss"]; has {
		return "", fault.New(fault.Internal, "claims to sign must have no iss")
	}
	keys, err := s.series(ctx, Audit)
	if err != nil {
		return "", err
	}
	row, _ := keys.current(s.now())
	key, err := s.open(ctx, row)
	if err != nil {
		return "", err
	}
	all := map[string]any{"iss": s.issuer}
	for name, value := range claims {
		all[name] = value
	}
	signed, err := key.SignAs(typ, nil, all)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "a statement cannot be signed")
	}
	return signed.Expose(), nil
}

// StatementKeys returns the JWK set (RFC 7517 §5) of every key that ever signed a statement here and was not revoked.
func (s *Service) StatementKeys(ctx context.Context) ([]byte, error) {
	if _, err := s.series(ctx, Audit); err != nil { // makes the first one
		return nil, err
	}
	rows, err := s.store.SigningKeys(ctx, Audit, 0)
	if err != nil {
		return nil, err
	}
	publics := make([]string, 0, len(rows))
	for _, r := range rows {
		if !r.live() {
			continue
		}
		key, err := s.open(ctx, r)
		if err != nil {
			return nil, err
		}
		public, err := key.Public()
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "signing key %q cannot be published", r.ID)
		}
		publics = append(publics, public)
	}
	return []byte(`{"keys":[` + strings.Join(publics, ",") + `]}`), nil
}

// ReadStatement verifies a statement of exactly the type typ by a key set such as StatementKeys returns, and returns
// its claims. It needs no server. Whatever is wrong is Unauthenticated.
func ReadStatement(keys []byte, typ, statement string) (jws.Claims, error) {
	const noun = "the statement"
	t, err := jws.ParseTyped(noun, typ, secret.New(statement))
	if err != nil {
		return jws.Claims{}, err
	}
	set, err := jws.ParseSet(keys)
	if err != nil {
		return jws.Claims{}, err
	}
	if t.KeyID() == "" {
		return jws.Claims{}, fault.New(fault.Unauthenticated, "%s names no key", noun)
	}
	return t.Claims, t.Verify(set)
}
