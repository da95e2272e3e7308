package broker_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

const arnPrefix = "arn:aws:bedrock-agentcore:us-east-1:" + string(account) + ":"

// taggable makes one of each kind and returns their ARNs.
func (w *world) taggable() map[string]string {
	w.apiKey("maps", nil)
	return map[string]string{
		"workload": arnPrefix + "workload-identity-directory/default/workload-identity/agent-a",
		"oauth2":   arnPrefix + "token-vault/default/oauth2credentialprovider/cal",
		"api key":  arnPrefix + "token-vault/default/apikeycredentialprovider/maps",
		"vault":    arnPrefix + "token-vault/default",
	}
}

func TestTags(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for kind, arn := range w.taggable() {
		before, err := w.Tags(ctx, w.admin, arn)
		must(t, err)
		want := map[string]string{"team": "x", "stage": ""}
		for k, v := range before { // the workload identity has a tag from its creation
			want[k] = v
		}
		must(t, w.Tag(ctx, w.admin, arn, map[string]string{"team": "x"}))
		must(t, w.Tag(ctx, w.root, arn, map[string]string{"stage": "", "team": "x"}))
		must(t, w.Tag(ctx, w.root, arn, nil))
		got, err := w.Tags(ctx, w.admin, arn)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", kind, diff)
		}
		must(t, w.Untag(ctx, w.admin, arn, []string{"team", "never there"}))
		got, err = w.Tags(ctx, w.admin, arn)
		must(t, err)
		if delete(want, "team"); !cmp.Equal(want, got) {
			t.Errorf("%s after untag: %v, want %v", kind, got, want)
		}

		many := map[string]string{}
		for i := range identity.MaxTags {
			many[fmt.Sprint("tag", i)] = ""
		}
		code(t, kind+": too many", w.Tag(ctx, w.admin, arn, many), fault.Limit)
		for _, c := range []access.Caller{w.agentA, w.appA, {}} {
			_, err := w.Tags(ctx, c, arn)
			code(t, kind+": read by "+c.Name, err, fault.Denied)
			code(t, kind+": tag by "+c.Name, w.Tag(ctx, c, arn, want), fault.Denied)
			code(t, kind+": untag by "+c.Name, w.Untag(ctx, c, arn, []string{"stage"}), fault.Denied)
		}
	}
}

func TestTags_Reserved(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for kind, arn := range w.taggable() {
		must(t, w.Tag(ctx, w.admin, arn, map[string]string{identity.TagAssurance: identity.Verified}))
		must(t, w.Untag(ctx, w.admin, arn, []string{identity.TagAssurance}))
		for _, bad := range []map[string]string{{identity.TagVault: "default"}, {identity.TagAssurance: "yes"}, {"tabard:other": "x"}, {"Tabard:Assurance": "verified"}} {
			code(t, fmt.Sprint(kind, bad), w.Tag(ctx, w.admin, arn, bad), fault.Invalid)
		}
		for _, key := range []string{identity.TagVault, "tabard:other", "TABARD:assurance"} {
			code(t, kind+" without "+key, w.Untag(ctx, w.admin, arn, []string{key}), fault.Invalid)
		}
		got, err := w.Tags(ctx, w.admin, arn)
		must(t, err)
		if len(got) != 0 {
			t.Errorf("%s has %v", kind, got)
		}
	}
}

// A tag is a rule from the next call on.
func TestA05_AssuranceTagTakesEffect(t *testing.T) {
	w := newWorld(t)
	ctx, arns := t.Context(), w.taggable()
	wat := w.watForID(w.agentA, "u1")
	must(t, w.Tag(ctx, w.admin, arns["api key"], map[string]string{identity.TagAssurance: identity.Verified}))
	_, err := w.APIKey(ctx, w.agentA, wat, "maps")
	code(t, "an asserted user", err, fault.Denied)
	must(t, w.Untag(ctx, w.admin, arns["api key"], []string{identity.TagAssurance}))
	_, err = w.APIKey(ctx, w.agentA, wat, "maps")
	must(t, err)
	must(t, w.Tag(ctx, w.admin, arns["workload"], map[string]string{identity.TagAssurance: identity.Verified}))
	_, err = w.identity.MintTokenForUserID(ctx, w.agentA, "agent-a", "u1")
	code(t, "minting for an asserted user", err, fault.Denied)
}

// A02: what another account or region has is not there.
func TestA02_TagsOfNothing(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.taggable()
	for _, arn := range []string{
		arnPrefix + "token-vault/other", arnPrefix + "token-vault/default/oauth2credentialprovider/none",
		arnPrefix + "token-vault/default/apikeycredentialprovider/cal", arnPrefix + "token-vault/default/apikeycredentialprovider/a\x00b",
		arnPrefix + "workload-identity-directory/default/workload-identity/none", arnPrefix + "workload-identity-directory/default",
		arnPrefix + "runtime/agent-a", "arn:aws:bedrock-agentcore:eu-west-1:" + string(account) + ":token-vault/default",
		"arn:aws:bedrock-agentcore:us-east-1:" + string(other) + ":token-vault/default", "arn:aws-us-gov" + strings.TrimPrefix(arnPrefix, "arn:aws") + "token-vault/default",
	} {
		_, err := w.Tags(ctx, w.root, arn)
		code(t, "read "+arn, err, fault.NotFound)
		code(t, "tag "+arn, w.Tag(ctx, w.root, arn, map[string]string{"k": "v"}), fault.NotFound)
		code(t, "untag "+arn, w.Untag(ctx, w.root, arn, []string{"k"}), fault.NotFound)
	}
}

// No change of tags is lost to another that is made at the same time.
func TestTags_Race(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for kind, arn := range w.taggable() {
		var group sync.WaitGroup
		for i := range 6 {
			group.Go(func() {
				if err := w.Tag(ctx, w.admin, arn, map[string]string{fmt.Sprint("race", i): "x"}); err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			})
		}
		group.Wait()
		got, err := w.Tags(ctx, w.admin, arn)
		must(t, err)
		if delete(got, identity.TagAssurance); len(got) != 6 {
			t.Errorf("%s has %v, want six tags", kind, got)
		}
	}
}

func TestTokenVault(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	made := w.clock.now()
	w.clock.add(time.Hour)
	for _, id := range []string{"", broker.DefaultVault} {
		v, err := w.TokenVault(ctx, w.admin, id)
		must(t, err)
		if v.ID != "default" || !v.Modified.Equal(made) {
			t.Errorf("got %+v, want default of %s", v, made)
		}
		kept, err := w.KeepServiceKey(ctx, w.admin, id)
		must(t, err)
		if kept != v {
			t.Errorf("keeping the key: %+v, want %+v", kept, v)
		}
		code(t, "a customer's key", w.UseCustomerKey(ctx, w.admin, id), fault.Invalid)
		code(t, "reset", w.ResetVaultKey(ctx, w.admin, id), fault.Invalid)
	}
	for _, c := range []struct {
		caller access.Caller
		id     string
		want   fault.Code
	}{{w.root, "other", fault.NotFound}, {w.agentA, "", fault.Denied}, {w.agentA, "other", fault.Denied}} {
		_, err := w.TokenVault(ctx, c.caller, c.id)
		code(t, "get", err, c.want)
		_, err = w.KeepServiceKey(ctx, c.caller, c.id)
		code(t, "set", err, c.want)
		code(t, "customer", w.UseCustomerKey(ctx, c.caller, c.id), c.want)
		code(t, "reset", w.ResetVaultKey(ctx, c.caller, c.id), c.want)
	}
	fresh := w.root
	fresh.Account = other // an account that stored nothing yet
	v, err := w.TokenVault(ctx, fresh, "")
	must(t, err)
	if !v.Modified.Equal(w.clock.now()) {
		t.Errorf("a vault at its first use: %+v", v)
	}
}

// TestRestore_BringsConnectionsBack: what was stored for the agent serves it again, after a new token.
func TestRestore_BringsConnectionsBack(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	wat := w.machineWAT(w.agentA)
	before := w.token(w.agentA, ask(wat, machine))
	must(t, w.identity.DeleteWorkload(ctx, w.admin, "agent-a"))
	_, err := w.identity.RestoreWorkload(ctx, w.admin, "agent-a")
	must(t, err)
	_, err = w.Token(ctx, w.agentA, ask(wat, machine))
	code(t, "a token from before the deletion", err, fault.Unauthenticated)
	after := w.token(w.agentA, ask(w.machineWAT(w.agentA), machine))
	if after.Connection != before.Connection || after.AccessToken.Expose() != before.AccessToken.Expose() {
		t.Errorf("connection %s, want %s", after.Connection, before.Connection)
	}
}
