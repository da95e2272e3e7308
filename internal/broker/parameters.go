package broker

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// MaxConnections bounds the connections of a workload identity and user to one provider (threat M05).
const MaxConnections = 20

// ErrManyConnections is the cause of a Throttled fault: there are MaxConnections.
var ErrManyConnections = errors.New("as many connections as there may be")

// roomFor refuses what would be one connection too many, before the provider is asked. It records why.
func (b *Broker) roomFor(ctx context.Context, g grounds, c Connection) error {
	return b.tooMany(ctx, g, c, b.store.RoomForConnection(ctx, c))
}

func (b *Broker) tooMany(ctx context.Context, g grounds, c Connection, err error) error {
	if !errors.Is(err, ErrManyConnections) {
		return err
	}
	return b.turnAway(ctx, g, "too-many-connections", fault.Wrap(fault.Throttled, err,
		"workload identity %s has %d connections of provider %s for this user, which is as many as there may be: see why with "+
			"tabard connection list --provider %s, and revoke one with tabard connection revoke ID", g.workload.Name, MaxConnections, g.provider.Name, g.provider.Name))
}

// chooses reports whether the parameter, in whatever spelling, chooses an account, an organization or a kind of
// sign-in, wherever it means something at all: whose token comes depends on it.
func chooses(name string) bool {
	switch bare(name) {
	case "loginhint", "hd", "acrvalues", "organization":
		return true
	}
	return false
}

// NoPresentation says why the parameter cannot be named as one that only changes how a user is asked, or "".
func NoPresentation(name string) string {
	switch {
	case reserved(name):
		return "the broker sets it"
	case widens(name):
		return "it can widen a token, so that it always names the token"
	case chooses(name):
		return "it chooses whose token comes, so that it always names the token"
	}
	return ""
}

// bare is the name without what words are joined with.
func bare(name string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(access.Spelled(name))
}

// widens reports whether the parameter, in whatever spelling, can make a token cover more than the scopes that were
// asked for: details of its own (RFC 9396 §2), claims (OpenID Connect Core §5.5), another kind of token (RFC 8693
// §2.1), or scopes under another name. Whatever has the word scope in its name is taken for such: vendors invent more
// of them.
func widens(name string) bool {
	switch plain := bare(name); plain {
	case "authorizationdetails", "claims", "requestedtokentype", "permission", "permissions", "perms", "privileges", "configid":
		return true
	default:
		return strings.Contains(plain, "scope")
	}
}

// spelled returns the names of the custom parameters as policies read them.
func (r *Request) spelled() []string {
	var names []string
	for name := range r.CustomParameters {
		names = append(names, access.Spelled(name))
	}
	return names
}

// checkWidening refuses parameters that can widen the token past what policies and ceilings list as scopes, unless the
// provider's setting names them (threat M04). The vendor's own parameter for scopes is one of the scopes.
func (r *Request) checkWidening(p Provider) error {
	name, ok := p.notAllowed(slices.Sorted(maps.Keys(r.CustomParameters)))
	if ok {
		return nil
	}
	return fault.Field("customParameters", "the parameter %s can widen a token beyond its scopes, and provider %s does not allow it: "+
		"an administrator can, with tabard provider update %s --allow-parameter %s, or the tag %s", name, p.Name, p.Name, name, identity.TagAllowed)
}

// notAllowed returns the first of the parameters that can widen a token and that the provider's setting does not name;
// ok if there is none.
func (p Provider) notAllowed(names []string) (name string, ok bool) {
	allowed := p.Allowed()
	for _, name := range names {
		if widens(name) && !slices.ContainsFunc(allowed, func(a string) bool { return access.Spelled(a) == access.Spelled(name) }) {
			return name, false
		}
	}
	return "", true
}

// stillAllowed refuses what is left of a session, if the provider allows one of its parameters no more (threat M04).
func (f Flow) stillAllowed(p Provider) error {
	name, ok := p.notAllowed(f.SentNames)
	if ok {
		return nil
	}
	return ending(EndFailed, "the provider's settings were changed", "it was opened with the parameter %s, which provider %s does not allow "+
		"any more: ask for the token without it, or have an administrator allow it (tabard provider update %s --allow-parameter %s)",
		name, p.Name, p.Name, name)
}

// spelledAll is access.Spelled of each name that names does not have yet, behind names.
func spelledAll(names, more []string) []string {
	for _, name := range more {
		if one := access.Spelled(name); !slices.Contains(names, one) {
			names = append(names, one)
		}
	}
	return names
}

// naming returns the names of the custom parameters that decide which token comes, in order: all but those that only
// present, by the catalogue or the provider's setting, and those that say what the vendor's default says anyway. What
// can widen a token, or chooses whose it is, always does.
func (r *Request) naming(p Provider, v Vendor) []string {
	own := p.Presentation()
	var names []string
	for name, value := range r.CustomParameters {
		if widens(name) || chooses(name) || !slices.Contains(v.Presentation, name) && !slices.Contains(own, name) {
			if d, ok := v.AuthorizeParams[name]; !ok || r.Flow != FlowUserFederation || !value.Equal(secret.New(d)) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// nameParameters sets what the request's custom parameters add to the name of its connection: a MAC under the server's
// key, so that a copy of the database does not tell their values (threat M05).
func (b *Broker) nameParameters(ctx context.Context, account access.Account, r *Request, p Provider, v Vendor) error {
	r.parameterNames = r.naming(p, v)
	if len(r.parameterNames) == 0 {
		return nil
	}
	fields := []string{string(account)}
	for _, name := range r.parameterNames {
		fields = append(fields, name, r.CustomParameters[name].Expose())
	}
	var err error
	r.parameters, err = b.macOf(ctx, "connection-parameters-1", fields...)
	return err
}

// macOf is a MAC of some texts under a key of the server, hexadecimal. The purpose is no account's id, so that it is
// never that of a user's reference.
func (b *Broker) macOf(ctx context.Context, purpose string, texts ...string) (string, error) {
	var data []byte
	for _, s := range append([]string{purpose}, texts...) {
		data = binary.BigEndian.AppendUint32(data, uint32(len(s)))
		data = append(data, s...)
	}
	mac, err := b.vault.UserRef(ctx, data)
	return hex.EncodeToString(mac), err
}
