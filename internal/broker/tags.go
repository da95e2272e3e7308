package broker

import (
	"context"
	"errors"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// tagTries bounds how often a change of tags is tried again after somebody else's change.
const tagTries = 10

// resource is what an ARN names.
type resource struct {
	kind resourceKind
	name string
}

type resourceKind int

const (
	nothing resourceKind = iota // of another account, region or kind
	workloadResource
	oauthResource
	apiKeyResource
	vaultResource
)

// parseARN reads the ARN of something that has tags. An ARN of another account or region is of nothing that the caller
// could see.
func (b *Broker) parseARN(account access.Account, arn string) resource {
	rest, ok := strings.CutPrefix(arn, "arn:aws:bedrock-agentcore:"+b.region+":"+string(account)+":")
	if !ok {
		return resource{}
	}
	if rest == "token-vault/"+DefaultVault {
		return resource{vaultResource, DefaultVault}
	}
	for prefix, kind := range map[string]resourceKind{
		"workload-identity-directory/default/workload-identity/": workloadResource,
		"token-vault/default/oauth2credentialprovider/":          oauthResource,
		"token-vault/default/apikeycredentialprovider/":          apiKeyResource,
	} {
		if name, ok := strings.CutPrefix(rest, prefix); ok {
			return resource{kind, name}
		}
	}
	return resource{}
}

// Tags returns the tags of a workload identity, of a credential provider or of the token vault. NotFound is what the
// ARN does not name, or names in another account or region.
func (b *Broker) Tags(ctx context.Context, caller access.Caller, arn string) (map[string]string, error) {
	r := b.parseARN(caller.Account, arn)
	if r.kind == workloadResource {
		return b.identity.WorkloadTags(ctx, caller, r.name)
	}
	if err := b.permitTags(ctx, caller, access.ListTagsForResource, arn, r); err != nil {
		return nil, err
	}
	t, err := b.tagsOf(ctx, caller.Account, arn, r)
	return t.tags, err
}

// Tag sets tags, as identity.AddTags has it.
func (b *Broker) Tag(ctx context.Context, caller access.Caller, arn string, add map[string]string) error {
	r := b.parseARN(caller.Account, arn)
	if r.kind == workloadResource {
		return b.identity.TagWorkload(ctx, caller, r.name, add)
	}
	if err := b.permitTags(ctx, caller, access.TagResource, arn, r); err != nil {
		return err
	}
	if r.kind == oauthResource {
		if err := checkProviderTags(add); err != nil {
			return err
		}
	}
	return b.retag(ctx, caller.Account, arn, r, func(old map[string]string) (map[string]string, error) { return identity.AddTags(old, add) })
}

// Untag removes tags, as identity.DropTags has it.
func (b *Broker) Untag(ctx context.Context, caller access.Caller, arn string, keys []string) error {
	r := b.parseARN(caller.Account, arn)
	if r.kind == workloadResource {
		return b.identity.UntagWorkload(ctx, caller, r.name, keys)
	}
	if err := b.permitTags(ctx, caller, access.UntagResource, arn, r); err != nil {
		return err
	}
	return b.retag(ctx, caller.Account, arn, r, func(old map[string]string) (map[string]string, error) { return identity.DropTags(old, keys) })
}

func (b *Broker) permitTags(ctx context.Context, caller access.Caller, action access.Action, arn string, r resource) error {
	f := access.Facts{Resource: arn}
	if r.kind == oauthResource || r.kind == apiKeyResource {
		f.Provider = r.name
	}
	return b.guard.Permit(ctx, caller, action, f)
}

// tagged is a resource's tags, and how they are replaced where nobody else was first.
type tagged struct {
	tags map[string]string
	swap func(tags map[string]string) error
}

func (b *Broker) tagsOf(ctx context.Context, account access.Account, arn string, r resource) (tagged, error) {
	var t tagged
	var err error
	switch r.kind {
	case oauthResource:
		var p Provider
		p, err = b.store.Provider(ctx, account, r.name)
		t.tags = p.Tags
		t.swap = func(tags map[string]string) error {
			old := p.Version
			p.Tags, p.Version, p.Updated = tags, old+1, b.now()
			return b.store.SwapProvider(ctx, p, old)
		}
	case apiKeyResource:
		var p APIKeyProvider
		p, err = b.store.APIKeyProvider(ctx, account, r.name)
		t.tags = p.Tags
		t.swap = func(tags map[string]string) error {
			old := p.Version
			p.Tags, p.Version, p.Updated = tags, old+1, b.now()
			return b.store.SwapAPIKeyProvider(ctx, p, old)
		}
	case vaultResource:
		var version int64
		t.tags, version, err = b.store.VaultTags(ctx, account, r.name)
		if errors.Is(err, fault.NotFound) {
			t.tags, version, err = nil, 0, nil
		}
		t.swap = func(tags map[string]string) error { return b.store.SwapVaultTags(ctx, account, r.name, tags, version) }
	default:
		err = fault.New(fault.NotFound, "")
	}
	if errors.Is(err, fault.NotFound) {
		err = fault.New(fault.NotFound, "resource %s does not exist", arn)
	}
	return t, err
}

// retag applies change, again on what it finds where somebody else was first. It writes even where nothing changed:
// what a cache says may be a second old.
func (b *Broker) retag(ctx context.Context, account access.Account, arn string, r resource, change func(map[string]string) (map[string]string, error)) error {
	for try := 1; ; try++ {
		t, err := b.tagsOf(ctx, account, arn, r)
		if err != nil {
			return err
		}
		tags, err := change(t.tags)
		if err != nil {
			return err
		}
		if err = t.swap(tags); !errors.Is(err, fault.Conflict) || try == tagTries {
			return err
		}
	}
}
