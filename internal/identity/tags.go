package identity

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
)

// MaxTags is how many tags a resource may have, as at AWS.
const MaxTags = 50

// AddTags returns old with the tags of add set. What is reserved is checked as at creation, and TagVault cannot be set
// any more. More than MaxTags is a Limit fault. Neither map is changed.
func AddTags(old, add map[string]string) (map[string]string, error) {
	if err := CheckTags(add); err != nil {
		return nil, err
	}
	if _, ok := add[TagVault]; ok {
		return nil, fixedTag("tags")
	}
	out := make(map[string]string, len(old)+len(add))
	maps.Copy(out, old)
	maps.Copy(out, add)
	if len(out) > MaxTags {
		return nil, fault.New(fault.Limit, "the resource would have %d tags, %d are allowed", len(out), MaxTags)
	}
	return out, nil
}

// DropTags returns old without the given keys. Keys that are not there are no error; TagVault and reserved tags that
// the server does not know are. old is not changed.
func DropTags(old map[string]string, keys []string) (map[string]string, error) {
	out := make(map[string]string, len(old))
	maps.Copy(out, old)
	for _, k := range keys {
		switch {
		case k == TagVault:
			return nil, fixedTag("tagKeys")
		case k != TagAssurance && !slices.Contains([]string{TagPresentation, TagAllowed, TagGrants, TagMaxTokens}, k) && strings.HasPrefix(strings.ToLower(k), reservedTags):
			return nil, fault.Field("tagKeys", "%q is not a tag that the server knows, and tags that begin with %s are reserved", clip(k), reservedTags)
		}
		delete(out, k)
	}
	return out, nil
}

func fixedTag(field string) error {
	return fault.Field(field, "the tag %s can be set at creation only", TagVault)
}

// WorkloadTags returns the tags of a workload identity.
func (s *Service) WorkloadTags(ctx context.Context, caller access.Caller, name string) (map[string]string, error) {
	w, err := s.permitWorkload(ctx, caller, access.ListTagsForResource, name)
	return w.Tags, err
}

// TagWorkload sets tags of a workload identity, as AddTags has it. TagAssurance takes effect with the next token.
func (s *Service) TagWorkload(ctx context.Context, caller access.Caller, name string, add map[string]string) error {
	return s.retagWorkload(ctx, caller, access.TagResource, name, func(old map[string]string) (map[string]string, error) { return AddTags(old, add) })
}

// UntagWorkload removes tags of a workload identity, as DropTags has it.
func (s *Service) UntagWorkload(ctx context.Context, caller access.Caller, name string, keys []string) error {
	return s.retagWorkload(ctx, caller, access.UntagResource, name, func(old map[string]string) (map[string]string, error) { return DropTags(old, keys) })
}

func (s *Service) retagWorkload(ctx context.Context, caller access.Caller, action access.Action, name string, change func(map[string]string) (map[string]string, error)) error {
	w, err := s.permitWorkload(ctx, caller, action, name)
	if err != nil {
		return err
	}
	_, err = s.swapWorkload(ctx, w, func(w *Workload) error {
		tags, err := change(w.Tags)
		if err != nil {
			return err
		}
		if !maps.Equal(tags, w.Tags) {
			w.Updated = s.now()
		}
		w.Tags = tags
		return nil
	})
	return err
}
