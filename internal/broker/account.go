package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/secret"
	"github.com/tabard-id/tabard/internal/vault"
)

// maxLabel bounds the label of an upstream account, in bytes.
const maxLabel = 200

// errOtherAccount means that what a provider granted is for another of its accounts than the connection's.
var errOtherAccount = errors.New("the tokens are of another account at the provider")

// upstream is the account at the provider that a connection's tokens are of. The zero value is an unknown one.
type upstream struct {
	Subject string `json:"sub"`
	Label   string `json:"label,omitempty"` // what its owner would know it by
}

// upstreamOf reads the account from the ID token of a grant. The signature is not needed: the token came from the token
// endpoint itself, over a connection of ours (OpenID Connect Core §3.1.3.7, point 6). An ID token that cannot be read,
// or that is of another issuer or for another client, tells nothing, and is no error: the grant is good without one.
func upstreamOf(e Endpoints, p Provider, g Grant) upstream {
	if g.IDToken.IsZero() || e.Issuer == "" {
		return upstream{}
	}
	token, err := jws.Parse("the ID token", g.IDToken)
	if err != nil {
		return upstream{}
	}
	issuer, _ := token.Claims.String("iss")
	subject, _ := token.Claims.String("sub")
	audience, err := token.Claims.Strings("aud")
	if err != nil || issuer != e.Issuer || !slices.Contains(audience, p.ClientID) || len(subject) > maxSubject || subject == "" {
		return upstream{}
	}
	email, _ := token.Claims.String("email")
	username, _ := token.Claims.String("preferred_username")
	name, _ := token.Claims.String("name")
	return upstream{Subject: subject, Label: clean(cmp.Or(email, username, name), maxLabel)}
}

// differs reports whether both accounts are known and are not the same.
func (u upstream) differs(other upstream) bool {
	return u.Subject != "" && other.Subject != "" && u.Subject != other.Subject
}

// sealUpstream seals the account as the tokens are: subjects are short, and a hash of one is as good as the subject.
func (b *Broker) sealUpstream(ctx context.Context, c Connection, u upstream) (vault.Sealed, error) {
	if u.Subject == "" {
		return nil, nil
	}
	return b.sealUpstreamAt(ctx, c.ref("upstream"), u)
}

func (b *Broker) sealUpstreamAt(ctx context.Context, place vault.Ref, u upstream) (vault.Sealed, error) {
	doc, err := json.Marshal(u)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the upstream account could not be written")
	}
	return b.vault.Seal(ctx, place, secret.New(string(doc)))
}

// openUpstream returns what sealUpstream sealed, the zero value where there is nothing.
func (b *Broker) openUpstream(ctx context.Context, c Connection) (u upstream, err error) {
	if len(c.Upstream) == 0 {
		return u, nil
	}
	return b.openUpstreamAt(ctx, c.ref("upstream"), c.Upstream)
}

func (b *Broker) openUpstreamAt(ctx context.Context, place vault.Ref, sealed vault.Sealed) (u upstream, err error) {
	doc, err := b.vault.Open(ctx, place, sealed)
	if err != nil {
		return u, err
	}
	if err := json.Unmarshal([]byte(doc.Expose()), &u); err != nil {
		return u, fault.Wrap(fault.Internal, err, "the upstream account of %s is damaged", place.Key)
	}
	return u, nil
}

// replaceable says whether a consent with the account u may replace what old holds. It returns errOtherAccount where
// the user consented with another account than before and nobody asked for that (threat C31). Where the provider is no
// longer the one that old is of, the two accounts cannot be compared.
func (b *Broker) replaceable(ctx context.Context, flow Flow, p Provider, old Connection, u upstream) error {
	if flow.Force || old.Identity != p.Identity {
		return nil
	}
	before, err := b.openUpstream(ctx, old)
	if err == nil && before.differs(u) {
		return errOtherAccount
	}
	return err
}

// otherAccount ends the flow, and leaves the connection as it was. What the provider granted is dropped and not
// revoked: it may be all that another connection of that account lives on.
func (b *Broker) otherAccount(ctx context.Context, caller access.Caller, flow Flow, fence int64) error {
	const reason = "consented with another account than before; use forceAuthentication to replace it"
	err := b.commit(ctx, func(ctx context.Context) error {
		_, err := b.store.FailFlow(ctx, flow.ID, reason, fence)
		return err
	})
	if err != nil {
		return err
	}
	if err := b.flowEvent(ctx, caller, flow, access.RedeemCode, "other_account", reason).Wait(ctx); err != nil {
		return err
	}
	return ending(EndFailed, reason, reason)
}
