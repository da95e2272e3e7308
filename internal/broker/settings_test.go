package broker_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
)

// M04: what a provider allows is one thing, a tag, whether a member of the API or the tag sets it, at creation or
// later; an update that does not name it leaves it.
func TestM04_AllowedParametersAreOneSetting(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := newWorld(t)
		arn := "arn:aws:bedrock-agentcore:us-east-1:000000000000:token-vault/default/oauth2credentialprovider/p"
		spec := func(change ...func(*broker.ProviderSpec)) broker.ProviderSpec {
			s := w.spec("p", "StrictOauth2")
			for _, c := range change {
				c(&s)
			}
			return s
		}
		is := func(when string, allowed, presentation string) {
			t.Helper()
			p, err := w.Provider(t.Context(), w.admin, "p")
			must(t, err)
			if got := [2]string{strings.Join(p.Allowed(), " "), strings.Join(p.Presentation(), " ")}; got != [2]string{allowed, presentation} {
				t.Errorf("%s: got %q, want %q and %q", when, got, allowed, presentation)
			}
			tags, err := w.Tags(t.Context(), w.admin, arn)
			must(t, err)
			want := map[string]string{"team": "web"}
			for key, value := range map[string]string{identity.TagAllowed: allowed, identity.TagPresentation: presentation} {
				if value != "" {
					want[key] = value
				}
			}
			if !maps.Equal(tags, want) {
				t.Errorf("%s: got tags %v, want %v", when, tags, want)
			}
			for name, asked := range map[string][]string{"claims": {"claims", "{}"}, "user_scope": {"user_scope", "x"}} {
				_, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), at("p"), with(asked...)))
				if ok := slices.Contains(p.Allowed(), name); ok != (err == nil) {
					t.Errorf("%s: %s is answered with %v, and it is allowed: %v", when, name, err, ok)
				}
			}
		}
		_, err := w.CreateProvider(t.Context(), w.admin, spec(func(s *broker.ProviderSpec) {
			s.Tags = map[string]string{"team": "web", identity.TagAllowed: "claims"}
			s.Allowed, s.Presentation = []string{"claims"}, []string{"label"}
		}))
		must(t, err)
		is("created", "claims", "label")
		update := func(change ...func(*broker.ProviderSpec)) {
			t.Helper()
			_, err := w.UpdateProvider(t.Context(), w.admin, spec(change...))
			must(t, err)
		}
		update()
		is("updated without a word of it", "claims", "label")
		update(func(s *broker.ProviderSpec) { s.Allowed = []string{"user_scope", "claims"} })
		is("updated", "user_scope claims", "label")
		must(t, w.Tag(t.Context(), w.admin, arn, map[string]string{identity.TagAllowed: "user_scope"}))
		is("tagged", "user_scope", "label")
		update(func(s *broker.ProviderSpec) { s.Allowed, s.Presentation = []string{}, []string{} })
		is("updated to none", "", "")
		must(t, w.Tag(t.Context(), w.admin, arn, map[string]string{identity.TagAllowed: "claims"}))
		must(t, w.Untag(t.Context(), w.admin, arn, []string{identity.TagAllowed}))
		is("tagged and untagged", "", "")
	})
}

// M04: one check for the members of the API and for the tag, at creation, at an update and for tags alone.
func TestM04_SettingsOfParametersAreChecked(t *testing.T) {
	w := newWorld(t)
	p := w.createProvider("p", "StrictOauth2")
	long := strings.Repeat("a", 64)
	for name, c := range map[string]struct {
		allowed, presentation string
		says                  string
	}{
		"what the broker sets":            {"claims redirect_uri", "", "redirect_uri"},
		"the same in another spelling":    {"Client.Secret", "", "Client.Secret"},
		"twice":                           {"user_scope user.scope", "", "twice"},
		"no name":                         {"a/b", "", "no name"},
		"a name too long":                 {long + "a", "", "no name"},
		"names too long together":         {strings.Join([]string{long, long[:63] + "b", long[:63] + "c", long[:63] + "d"}, " "), "", "256"},
		"presentation that widens":        {"", "label claims", "widen"},
		"presentation that chooses":       {"", "login_hint", "whose token"},
		"an organization":                 {"", "Organization", "whose token"},
		"presentation that the broker is": {"", "state", "broker sets"},
	} {
		key, field, names := identity.TagAllowed, "allowedParameters", c.allowed
		set := func(s *broker.ProviderSpec) { s.Allowed = strings.Fields(names) }
		if c.presentation != "" {
			key, field, names = identity.TagPresentation, "presentationParameters", c.presentation
			set = func(s *broker.ProviderSpec) { s.Presentation = strings.Fields(names) }
		}
		bad := func(way string, err error, at string) {
			t.Helper()
			wantError(t, name+" by "+way, err, fault.Invalid, c.says)
			if got := fault.Public(err).Field; got != at {
				t.Errorf("%s by %s: the error is about %q, want %q", name, way, got, at)
			}
		}
		s := w.spec("q", "StrictOauth2")
		set(&s)
		_, err := w.CreateProvider(t.Context(), w.admin, s)
		bad("creation", err, field)
		s.Name = "p"
		_, err = w.UpdateProvider(t.Context(), w.admin, s)
		bad("update", err, field)
		s = w.spec("q", "StrictOauth2")
		s.Tags = map[string]string{key: names}
		_, err = w.CreateProvider(t.Context(), w.admin, s)
		bad("a tag at creation", err, "tags")
		bad("a tag", w.Tag(t.Context(), w.admin, p.ARN("us-east-1"), s.Tags), "tags")
	}
	s := w.spec("q", "StrictOauth2")
	s.Tags, s.Allowed = map[string]string{identity.TagAllowed: "claims user_scope"}, []string{"claims"}
	_, err := w.CreateProvider(t.Context(), w.admin, s)
	wantError(t, "the tag and the member differ", err, fault.Invalid, "differ")
}

// M05: what the catalogue says of a vendor only presents there, and nowhere else.
func TestM05_PresentationIsDataOfTheCatalogue(t *testing.T) {
	w := newWorld(t)
	w.createProvider("shown", "ShownOauth2")
	w.createProvider("plain", "StrictOauth2")
	wat := w.wat(w.agentA, "alice")
	for _, provider := range []string{"shown", "plain"} {
		w.consent("alice", at(provider))
		w.token(w.agentA, ask(wat, at(provider), with("prompt", "login", "ui_locales", "de")))
	}
	w.token(w.agentA, ask(wat, at("shown"), with("color", "blue")))
	w.pending(w.agentA, ask(wat, at("plain"), with("color", "blue")))
}
