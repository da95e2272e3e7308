package broker

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// maxNames bounds the names of parameters in one setting of a provider, together: they are kept as a tag, which AWS's
// clients show too.
const maxNames = 256

var parameterName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// Allowed returns the names of the parameters that can widen a token and that the provider takes all the same.
func (p Provider) Allowed() []string { return p.names(identity.TagAllowed) }

// Presentation returns the names of the parameters that only change how a user is asked, beside those of the vendor.
func (p Provider) Presentation() []string { return p.names(identity.TagPresentation) }

func (p Provider) names(key string) []string {
	if p.Tags[key] == "" {
		return nil
	}
	return strings.Fields(p.Tags[key])
}

// checkNames checks the names of one setting, which the field has, however they came. key is the tag that keeps them.
func checkNames(field, key string, names []string) error {
	if n := len(strings.Join(names, " ")); n > maxNames {
		return fault.Field(field, "has %d bytes of names, and %d are allowed", n, maxNames)
	}
	for i, name := range names {
		why := ""
		switch {
		case !parameterName.MatchString(name):
			return fault.Field(field, "%q is no name of a parameter: 1 to 64 of letters, digits, _, . and -", clean(name, 64))
		case slices.ContainsFunc(names[:i], func(one string) bool { return access.Spelled(one) == access.Spelled(name) }):
			return fault.Field(field, "names the parameter %s twice", name)
		case key == identity.TagPresentation:
			why = NoPresentation(name)
		case reserved(name):
			why = "the broker sets it, and no setting gives it to callers"
		}
		if why != "" {
			return fault.Field(field, "cannot name the parameter %s: %s", name, why)
		}
	}
	return nil
}

// checkProviderTags is identity.CheckTags with what only providers have.
func checkProviderTags(tags map[string]string) error {
	if err := identity.CheckTags(tags); err != nil {
		return err
	}
	for _, key := range []string{identity.TagAllowed, identity.TagPresentation} {
		if err := checkNames("tags", key, strings.Fields(tags[key])); err != nil {
			return err
		}
	}
	switch grants, set := tags[identity.TagGrants]; {
	case set && grants != string(Shared) && grants != string(Separate):
		return fault.Field("tags", "the tag %s is %s or %s, not %q", identity.TagGrants, Shared, Separate, clean(grants, 64))
	case tags[identity.TagMaxTokens] == "":
		return nil
	}
	if n, err := strconv.Atoi(tags[identity.TagMaxTokens]); err != nil || n < 1 || n > MaxMaxTokens {
		return fault.Field("tags", "the tag %s is a number from 1 to %d, not %q", identity.TagMaxTokens, MaxMaxTokens, clean(tags[identity.TagMaxTokens], 64))
	}
	return nil
}

// settled returns the tags with the specification's settings in them. A setting is one thing, a tag, however it is set:
// so the two cannot differ.
func settled(tags map[string]string, s ProviderSpec) (map[string]string, error) {
	out := maps.Clone(tags)
	for _, one := range []struct {
		field, key string
		names      []string
	}{
		{"allowedParameters", identity.TagAllowed, s.Allowed},
		{"presentationParameters", identity.TagPresentation, s.Presentation},
	} {
		if one.names == nil {
			continue
		}
		if err := checkNames(one.field, one.key, one.names); err != nil {
			return nil, err
		}
		value, tagged := s.Tags[one.key]
		if tagged && !slices.Equal(strings.Fields(value), one.names) {
			return nil, fault.Field(one.field, "is the tag %s too, and the two differ: give one of them", one.key)
		}
		if len(one.names) == 0 {
			delete(out, one.key)
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[one.key] = strings.Join(one.names, " ")
	}
	if len(out) > identity.MaxTags {
		return nil, fault.New(fault.Limit, "the provider would have %d tags with its settings, %d are allowed", len(out), identity.MaxTags)
	}
	return out, nil
}
