package broker

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// ResourceRule says how a vendor whose access tokens are each for one resource, and whose refresh tokens are for all of
// them, names the resource in a scope: a scope is the resource, a slash and a name.
type ResourceRule struct {
	Default string            // of a scope that names no resource
	Free    []string          // scopes that belong to no resource
	Whole   string            // the name of the scope that stands for all that was granted of a resource; "" for none
	Aliases map[string]string // other names of resources
}

// split returns the resource and the name of a scope; the resource is "" for a scope of none. Slashes at the end of a
// resource do not count, nor the case of its scheme and host (RFC 3986 §6.2.2.1).
func (r *ResourceRule) split(scope string) (resource, name string) {
	if slices.Contains(r.Free, scope) {
		return "", scope
	}
	i := strings.LastIndexByte(scope, '/')
	if i < 0 {
		return r.Default, scope
	}
	resource, name = strings.TrimRight(scope[:i], "/"), scope[i+1:]
	if scheme, rest, ok := strings.Cut(resource, "://"); ok {
		host, path, _ := strings.Cut(rest, "/")
		resource = strings.ToLower(scheme+"://"+host) + rest[len(host):len(rest)-len(path)] + path
	}
	if alias, ok := r.Aliases[resource]; ok {
		resource = alias
	}
	return resource, name
}

// resourceOf returns the resource that a token with the scopes is for, "" where they belong to none or the vendor's
// tokens are for no one resource. Scopes of two are refused: no token serves both (threat M05).
func (v Vendor) resourceOf(provider string, scopes []string) (string, error) {
	if v.Resources == nil {
		return "", nil
	}
	found := ""
	for _, s := range scopes {
		resource, _ := v.Resources.split(s)
		if resource == "" || resource == found {
			continue
		}
		if found != "" {
			return "", fault.Field("scopes", "are of the resources %s and %s, and a token of provider %s is for one: "+
				"ask for the token of each with a call of its own. The user is asked once if the provider allows that", found, resource, provider)
		}
		found = resource
	}
	return found, nil
}

// ResourceOf returns the resource that a token of the provider with the scopes is for, "" where tokens are for no one
// resource or there is no such provider. It decides nothing about a caller.
func (b *Broker) ResourceOf(ctx context.Context, account access.Account, provider string, scopes []string) (string, error) {
	p, err := b.store.Provider(ctx, account, provider)
	if errors.Is(err, fault.NotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	v, _ := b.catalogue.Vendor(p.Vendor)
	return v.resourceOf(p.Name, scopes)
}

// ofResource returns the granted scopes that are of the resource, or of none. An error means that the token is for
// another resource than was asked for: it names scopes, and none of that resource.
func (v Vendor) ofResource(p Provider, resource string, granted []string) ([]string, error) {
	if v.Resources == nil || resource == "" {
		return granted, nil
	}
	found, other := false, ""
	kept := granted[:0:0]
	for _, s := range granted {
		switch of, _ := v.Resources.split(s); of {
		case resource:
			found = true
			kept = append(kept, s)
		case "":
			kept = append(kept, s)
		default:
			other = of
		}
	}
	if other != "" && !found {
		return nil, fault.New(fault.Unavailable, "provider %s answered with a token for %s, and one for %s was asked for", p.Name, clean(other, 200), resource)
	}
	if granted == nil {
		return nil, nil
	}
	return kept, nil
}

// obtained returns which of the scopes that were asked for count as asked of the user, after a refresh that asked for
// them without the user: those that were granted, and those that answers do not name. The others were not declined by
// anybody.
func (v Vendor) obtained(asked, granted []string) []string {
	if granted == nil {
		return asked
	}
	var out []string
	for _, s := range asked {
		resource, name := v.Resources.split(s)
		if resource == "" || v.Resources.Whole != "" && name == v.Resources.Whole && len(granted) > 0 || v.covers(granted, []string{s}) {
			out = append(out, s)
		}
	}
	return out
}

// renewal returns the scopes to refresh the connection with: its refresh token is for other resources too. They are
// those of the last request that were granted, in the spelling of the request.
func (v Vendor) renewal(c Connection) []string {
	scopes := v.obtained(c.Requested, c.Granted)
	for _, s := range scopes {
		if resource, _ := v.Resources.split(s); resource == c.Resource {
			return scopes
		}
	}
	return v.union(scopes, c.Granted)
}
