package broker

import (
	"slices"
	"strings"

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

// resourceOf returns the resource that a token with the scopes is for, "" where they belong to none or the vendor's tokens
// are for no one resource. Scopes of two are refused: no token serves both (threat M05).
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
