package federation

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// Marks of session credentials. The id of a session's access key has 20 characters, as AWS's and ours; the prefix is
// not that of keys which live in the database.
const (
	keyIDPrefix    = "TABSTS"
	secretPrefix   = "tabard_"
	tokenPrefix    = "ses1."
	bodyFormat     = 0x01
	maxTokenLength = 4096 // of a session token, in bytes
)

// Credentials are a key pair for SigV4 that ends, and the token that must be sent with it.
type Credentials struct {
	AccessKeyID string
	Secret      secret.Text
	Token       secret.Text // the credentials themselves, sealed: the server keeps nothing
	Expires     time.Time
}

// body is what a session token has sealed inside. The id of the access key is bound as associated data.
type body struct {
	account   access.Account
	principal access.PrincipalID
	rule      string
	issuer    string
	subject   string // SHA-256 of the token's subject, hexadecimal
	session   string // its name
	secret    secret.Text
	epoch     int64 // of the issuer: disabling it ends its sessions for good
	expires   time.Time
}

// seal makes session credentials.
func (s *Service) seal(ctx context.Context, v verified, g Grant, name string, life time.Duration) (Credentials, error) {
	sum := sha256.Sum256([]byte(v.subject))
	b := body{
		account: g.Account, principal: g.To.ID, rule: g.Rule.ID, issuer: g.Rule.Issuer, subject: hex.EncodeToString(sum[:]), session: name,
		secret: secret.New(secretPrefix + rand.Text() + rand.Text()[:14]), epoch: v.epoch, expires: s.Now().Add(life).Truncate(time.Second),
	}
	id := keyIDPrefix + rand.Text()[:14]
	sealed, err := s.Vault.SealServer(ctx, vault.RingSessions, s.sealContext(id), b.encode())
	if err != nil {
		return Credentials{}, err
	}
	token := secret.New(tokenPrefix + base64.RawURLEncoding.EncodeToString(sealed))
	return Credentials{AccessKeyID: id, Secret: b.secret, Token: token, Expires: b.expires}, nil
}

// sealContext is the associated data of a session token: it opens only beside its own access key id, on a server of
// this URL.
func (s *Service) sealContext(accessKeyID string) []byte {
	return appendField(appendField(appendField(nil, "session"), s.Server), accessKeyID)
}

func (b body) encode() []byte {
	out := []byte{bodyFormat}
	for _, f := range []string{string(b.account), string(b.principal), b.rule, b.issuer, b.subject, b.session, b.secret.Expose()} {
		out = appendField(out, f)
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(out, uint64(b.epoch)), uint64(b.expires.Unix()))
}

// decodeBody reads what encode wrote. It was sealed by this server, so ok is false only where a later version wrote it.
func decodeBody(in []byte) (b body, ok bool) {
	if len(in) == 0 || in[0] != bodyFormat {
		return body{}, false
	}
	in = in[1:]
	var fields [7]string
	for i := range fields {
		if len(in) < 4 {
			return body{}, false
		}
		n := int(binary.BigEndian.Uint32(in))
		if in = in[4:]; n > len(in) {
			return body{}, false
		}
		fields[i], in = string(in[:n]), in[n:]
	}
	if len(in) != 16 {
		return body{}, false
	}
	return body{
		account: access.Account(fields[0]), principal: access.PrincipalID(fields[1]), rule: fields[2], issuer: fields[3], subject: fields[4],
		session: fields[5], secret: secret.New(fields[6]), epoch: int64(binary.BigEndian.Uint64(in)),
		expires: time.Unix(int64(binary.BigEndian.Uint64(in[8:])), 0),
	}, true
}

// Credential is what the verification of a signature needs of session credentials: the token of X-Amz-Security-Token
// and the id of the access key that signed. A token that is none of ours, or of another key, and one whose rule, issuer
// or enabled principal is no more, give the same SignatureUnknown fault; one that is over gives CredentialsExpired.
// What is read may be one second old.
func (s *Service) Credential(ctx context.Context, accessKeyID string, token secret.Text) (identity.Credential, error) {
	unknown := fault.New(fault.SignatureUnknown, "the session token is not one of this access key, or what it was given for has ended")
	b, err := s.open(ctx, accessKeyID, token)
	if errors.Is(err, vault.ErrOpen) {
		return identity.Credential{}, unknown
	}
	if err != nil {
		return identity.Credential{}, err
	}
	if !s.Now().Before(b.expires) {
		return identity.Credential{}, fault.New(fault.CredentialsExpired, "the session ended at %s", b.expires.UTC().Format(time.RFC3339))
	}
	g, err := s.current(ctx, b)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Denied) {
		return identity.Credential{}, unknown
	}
	if err != nil {
		return identity.Credential{}, err
	}
	return identity.Credential{
		Caller:  callerOf(g, accessKeyID),
		Version: versionOf(token),
		Secret:  func(context.Context) (secret.Text, error) { return b.secret, nil },
	}, nil
}

// current returns what a session rests on as it is now. It is NotFound where that is no more, and Denied where the
// issuer is disabled.
func (s *Service) current(ctx context.Context, b body) (Grant, error) {
	trust, err := s.Store.WorkloadTrust(ctx, b.account, b.issuer)
	if err != nil {
		return Grant{}, err
	}
	epoch, err := s.stands(ctx, trust.Issuer)
	if err != nil {
		return Grant{}, err
	}
	for _, g := range trust.Grants {
		if g.Rule.ID == b.rule && g.To.ID == b.principal && !g.To.Disabled && !g.To.Has(access.Root) && b.epoch >= epoch {
			return g, nil
		}
	}
	return Grant{}, fault.New(fault.NotFound, "the rule %s is no more", b.rule)
}

// versionOf tells what is derived from one session's secret from what is derived from another's. It is negative: the
// versions of keys in the database are not.
func versionOf(token secret.Text) int64 {
	sum := sha256.Sum256([]byte(token.Expose()))
	return int64(binary.BigEndian.Uint64(sum[:]) | 1<<63)
}

// open opens a session token. Whatever is wrong with it, the error is vault.ErrOpen.
func (s *Service) open(ctx context.Context, accessKeyID string, token secret.Text) (body, error) {
	text := token.Expose()
	if len(text) > maxTokenLength || len(text) < len(tokenPrefix) || text[:len(tokenPrefix)] != tokenPrefix {
		return body{}, vault.ErrOpen
	}
	sealed, err := jws.DecodeBase64(text[len(tokenPrefix):])
	if err != nil {
		return body{}, vault.ErrOpen
	}
	plain, err := s.Vault.OpenServer(ctx, vault.RingSessions, s.sealContext(accessKeyID), sealed)
	if err != nil {
		return body{}, err
	}
	defer clear(plain)
	b, ok := decodeBody(plain)
	if !ok {
		return body{}, vault.ErrOpen
	}
	return b, nil
}
