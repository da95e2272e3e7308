package broker_test

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

// with adds custom parameters: names and values in turn.
func with(pairs ...string) func(*broker.Request) {
	return func(r *broker.Request) {
		r.CustomParameters = map[string]secret.Text{}
		for i := 0; i < len(pairs); i += 2 {
			r.CustomParameters[pairs[i]] = secret.New(pairs[i+1])
		}
	}
}

// M05: a token that custom parameters chose serves no request with others, in any flow, and no request without them.
func TestM05_CustomParametersNameTheToken(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := newWorld(t)
		w.createProvider("exchange", "StrictOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorNone}))
		for name, get := range map[string]func(...func(*broker.Request)) broker.Outcome{
			"USER_FEDERATION": func(change ...func(*broker.Request)) broker.Outcome {
				wat := w.wat(w.agentA, "alice")
				out, err := w.Token(t.Context(), w.agentA, ask(wat, change...))
				must(t, err)
				if out.Session == "" {
					return out
				}
				return w.consent("alice", change...)
			},
			"M2M": func(change ...func(*broker.Request)) broker.Outcome {
				return w.token(w.agentA, ask(w.wat(w.agentA, "alice"), append(change, machine)...))
			},
			"ON_BEHALF_OF_TOKEN_EXCHANGE": func(change ...func(*broker.Request)) broker.Outcome {
				return w.token(w.agentA, ask(w.wat(w.agentA, "alice"), append(change, onBehalf("exchange"))...))
			},
		} {
			t.Run(name, func(t *testing.T) {
				seen := map[string]string{}
				for _, c := range [][]string{
					{"organization", "a"}, {"organization", "b"}, {}, {"login_hint", "ada"}, {"hd", "example.com"}, {"acr_values", "a"},
					{"organization", "A"}, {"Organization", "a"}, {"organization", ""}, {"organization", "a", "hd", "b"}, {"a", "bc"}, {"ab", "c"}, {"Organization", ""},
				} {
					out := get(with(c...))
					for _, again := range [][]string{c, append([]string{"prompt", "consent", "access_type", "offline"}, c...)} {
						if get(with(again...)).Connection != out.Connection {
							t.Errorf("%q is answered by another connection than %q", again, c)
						}
					}
					if before, ok := seen[out.Connection]; ok {
						t.Errorf("%q is answered by the token of %q", c, before)
					}
					seen[out.Connection] = strings.Join(c, " ")
				}
			})
		}
	})
}

// M05: what the provider's settings name as presentation, and the vendor's default in its own words, are no other
// token.
func TestM05_PresentationAndDefaultsAreNoNames(t *testing.T) {
	w := newWorld(t)
	labels := w.createProvider("labels", "DefaultOauth2", func(s *broker.ProviderSpec) {
		s.Presentation, s.Allowed = []string{"label", "owner"}, []string{"claims"}
	})
	w.tagInStore(labels, identity.TagPresentation, "label owner claims organization")
	none := w.consent("alice", at("labels"))
	wat := w.wat(w.agentA, "alice")
	for _, c := range [][]string{{"label", "x"}, {"label", "y", "owner", "z", "prompt", "login"}, {"token_access_type", "offline"}} {
		if out := w.token(w.agentA, ask(wat, at("labels"), with(c...))); out.Connection != none.Connection {
			t.Errorf("%q names a connection of its own", c)
		}
	}
	w.pending(w.agentA, ask(wat, at("labels"), with("Label", "x")))
	w.pending(w.agentA, ask(wat, at("labels"), with("token_access_type", "online")))
	w.pending(w.agentA, ask(wat, at("labels"), with("claims", "{}")))
	w.pending(w.agentA, ask(wat, at("labels"), with("organization", "a")))
	w.pending(w.agentA, ask(wat, with("label", "x")))
}

// tagInStore sets a tag as nobody can who asks for it.
func (w *world) tagInStore(p broker.Provider, key, value string) {
	w.t.Helper()
	old := p.Version
	p.Tags, p.Version = maps.Clone(p.Tags), old+1
	p.Tags[key] = value
	must(w.t, w.db.SwapProvider(w.t.Context(), p, old))
}

// M05: a session that is polled, a refresh, a report, and a transfer stay with the parameters that the connection is
// of.
func TestM05_ParametersStayWithTheConnection(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := with("organization", "a"), with("organization", "b")
		wat := w.wat(w.agentA, "alice")
		waiting := w.pending(w.agentA, ask(wat, b))
		first := w.consent("alice", a)
		w.pending(w.agentA, ask(wat, b, session(waiting.Session)))
		w.pending(w.agentA, ask(wat, session(waiting.Session)))
		second := w.consent("alice", b)
		if out := w.token(w.agentA, ask(wat, session(waiting.Session))); out.Connection != second.Connection {
			t.Error("a poll is answered by a connection with other parameters")
		}
		_, err := w.ReportTokenInvalid(t.Context(), w.agentA, wat, first.Connection)
		must(t, err)
		after := w.token(w.agentA, ask(wat, a))
		if after.Connection != first.Connection || after.AccessToken.Equal(first.AccessToken) {
			t.Error("a report does not renew the connection of these parameters")
		}
		if out := w.token(w.agentA, ask(wat, b)); out.Connection != second.Connection || !out.AccessToken.Equal(second.AccessToken) {
			t.Error("a report renews the connection of other parameters")
		}
		_, err = w.TransferConnection(t.Context(), w.admin, first.Connection, "agent-b")
		must(t, err)
		watB := w.wat(w.agentB, "alice")
		if out := w.token(w.agentB, ask(watB, a)); out.Connection != first.Connection {
			t.Error("a transferred connection does not serve its parameters")
		}
		w.pending(w.agentB, ask(watB, b))
		w.pending(w.agentB, ask(watB))
		w.pending(w.agentA, ask(wat, a))
		c := w.connection(first.Connection)
		if len(c.ParamNames) != 1 || c.ParamNames[0] != "organization" || len(c.Parameters) != 64 {
			t.Errorf("the connection has the parameters %q under %q", c.ParamNames, c.Parameters)
		}
	})
}

// M04: a parameter that can widen a token is refused in any spelling and in each flow, unless the provider allows it.
func TestM04_WideningParametersAreRefused(t *testing.T) {
	w := newWorld(t)
	w.createProvider("wide", "StrictOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorNone}),
		func(s *broker.ProviderSpec) {
			s.Tags = map[string]string{identity.TagAllowed: "authorization_details claims requested_token_type optional_scope include_granted_scopes user_scope " +
				"user-scope userScope authorization-details optionalScope bot_scopes granular_bot_scope connection_scope requiredScopes perms"}
		})
	w.createProvider("narrow", "StrictOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorNone}),
		func(s *broker.ProviderSpec) {
			s.Tags = map[string]string{identity.TagAllowed: "organization"}
		})
	wat := w.wat(w.agentA, "alice")
	for _, name := range []string{
		"authorization_details", "Authorization.Details", "claims", "CLAIMS", "requested_token_type", "requested.token_type", "optional_scope",
		"include_granted_scopes", "user_scope", "user.scope", "User_Scope", "user-scope", "userScope", "authorization-details", "optionalScope",
		"bot_scopes", "granular_bot_scope", "connection_scope", "requiredScopes", "perms",
	} {
		for flow, of := range map[string]func(*broker.Request){"USER_FEDERATION": func(*broker.Request) {}, "M2M": machine, "exchange": onBehalf("narrow")} {
			sent := len(w.provider.Requests())
			_, err := w.Token(t.Context(), w.agentA, ask(wat, with(name, "x"), of, at("narrow")))
			wantError(t, flow+" "+name, err, fault.Invalid, name)
			wantError(t, flow+" "+name, err, fault.Invalid, identity.TagAllowed)
			if len(w.provider.Requests()) != sent {
				t.Errorf("%s %s: the provider was asked", flow, name)
			}
			if _, err = w.Token(t.Context(), w.agentA, ask(wat, with(name, "x"), of, at("wide"))); err != nil {
				t.Errorf("%s %s is refused where the provider allows it: %v", flow, name, err)
			}
		}
	}
	_, err := w.Token(t.Context(), w.agentA, ask(wat, with("a.b", "x", "a_b", "y")))
	wantError(t, "two spellings", err, fault.Invalid, "twice")
}

// seeing is a decider that remembers the names of parameters.
type seeing struct {
	access.Decider
	saw map[string]bool
}

func (s seeing) Decide(ctx context.Context, c access.Caller, a access.Action, f access.Facts) (access.Decision, error) {
	for _, p := range f.Parameters {
		s.saw[p] = true
	}
	return s.Decider.Decide(ctx, c, a, f)
}

// M04: policies see the names of the parameters.
func TestM04_PoliciesSeeParameters(t *testing.T) {
	w := newWorld(t)
	saw := map[string]bool{}
	guard := access.NewGuard(access.Config{Log: w.db, Now: w.clock.now, Decider: seeing{access.Table{}, saw}})
	t.Cleanup(guard.Close)
	c := w.config
	c.Guard = guard
	b, err := broker.New(c)
	must(t, err)
	for _, of := range []func(*broker.Request){machine, func(*broker.Request) {}} {
		clear(saw)
		_, err = b.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "alice"), with("Organi.zation", "a", "prompt", "login"), of))
		must(t, err)
		if !saw["organi_zation"] || !saw["prompt"] {
			t.Errorf("the decision saw %v", saw)
		}
	}
}

// forbidding is a decider that refuses requests with a parameter, once it is on.
type forbidding struct {
	access.Decider
	parameter string
	on        *bool
}

func (f forbidding) Decide(ctx context.Context, c access.Caller, a access.Action, facts access.Facts) (access.Decision, error) {
	if *f.on && slices.Contains(facts.Parameters, f.parameter) {
		return access.Decision{}, nil
	}
	return f.Decider.Decide(ctx, c, a, facts)
}

// M04: a poll is decided with the parameters that its session was opened with, whether or not it repeats them.
func TestM04_PollsAreDecidedWithTheSessionsParameters(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := newWorld(t)
		on := false
		guard := access.NewGuard(access.Config{Log: w.db, Now: w.clock.now, Decider: forbidding{access.Table{}, "organi_zation", &on}})
		t.Cleanup(guard.Close)
		c := w.config
		c.Guard = guard
		b, err := broker.New(c)
		must(t, err)
		a := with("Organi.zation", "a")
		wat := w.wat(w.agentA, "alice")
		redeemed := w.pending(w.agentA, ask(wat, a))
		w.consent("alice", a)
		open := w.pending(w.agentA, ask(wat, a, func(r *broker.Request) { r.Force = true }))
		plain := w.pending(w.agentA, ask(wat))
		for name, of := range map[string]string{"redeemed": redeemed.Session, "open": open.Session} {
			on = false
			_, err = b.Token(t.Context(), w.agentA, ask(wat, session(of)))
			must(t, err)
			on = true
			for _, again := range []func(*broker.Request){func(*broker.Request) {}, a, with("prompt", "login")} {
				_, err = b.Token(t.Context(), w.agentA, ask(wat, again, session(of)))
				wantCode(t, name, err, fault.Denied)
			}
		}
		_, err = b.Token(t.Context(), w.agentA, ask(wat, session(plain.Session)))
		must(t, err)
	})
}

// M04: the parameters of a poll are all that its session was opened with, also those that only present. Sealed values
// go when the session is redeemed or overtaken, and the names stay.
func TestM04_PollsAreDecidedWithWhatOnlyPresents(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := newWorld(t)
		on := false
		guard := access.NewGuard(access.Config{Log: w.db, Now: w.clock.now, Decider: forbidding{access.Table{}, "dis_play", &on}})
		t.Cleanup(guard.Close)
		w.createProvider("shown", "StrictOauth2", func(s *broker.ProviderSpec) { s.Tags = map[string]string{identity.TagPresentation: "Dis.play"} })
		c := w.config
		c.Guard = guard
		b, err := broker.New(c)
		must(t, err)
		wat := w.wat(w.agentA, "alice")
		shown := []func(*broker.Request){at("shown"), with("Dis.play", "page", "prompt", "login")}
		overtaken := w.pending(w.agentA, ask(wat, shown...))
		redeemed := w.pending(w.agentA, ask(wat, shown...))
		w.hold(redeemed.Session)
		must(t, w.complete(w.appA, redeemed.Session, "alice"))
		waiting := w.pending(w.agentA, ask(wat, append(shown, force)...))
		plain := w.pending(w.agentA, ask(wat, at("shown"), force))
		poll := func(s string) error {
			_, err := b.Token(t.Context(), w.agentA, ask(wat, at("shown"), session(s)))
			return err
		}
		on = true
		for name, s := range map[string]string{"overtaken": overtaken.Session, "redeemed": redeemed.Session, "open": waiting.Session} {
			wantCode(t, name, poll(s), fault.Denied)
		}
		must(t, poll(plain.Session))
		on = false
		for _, s := range []string{overtaken.Session, redeemed.Session, waiting.Session} {
			must(t, poll(s))
		}
	})
}

// M04: a name that is taken off the allowed ones ends what sessions with it can still do: polls, the browser's steps,
// and the redemption of a code that is held.
func TestM04_ANameThatIsAllowedNoMoreEndsItsSessions(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.createProvider("wide", "StrictOauth2", func(s *broker.ProviderSpec) { s.Tags = map[string]string{identity.TagAllowed: "claims user_scope"} })
		wat := w.wat(w.agentA, "alice")
		claims := []func(*broker.Request){at("wide"), with("claims", "{}")}
		redeemed := w.pending(w.agentA, ask(wat, claims...))
		w.hold(redeemed.Session)
		must(t, w.complete(w.appA, redeemed.Session, "alice"))
		open := w.pending(w.agentA, ask(wat, append(claims, force)...))
		visited := w.pending(w.agentA, ask(wat, append(claims, force)...))
		answer := w.visit(visited.Session)
		held := w.pending(w.agentA, ask(wat, append(claims, force)...))
		w.hold(held.Session)
		other := w.pending(w.agentA, ask(wat, at("wide"), with("user_scope", "x")))
		must(t, w.Tag(t.Context(), w.admin, p.ARN("us-east-1"), map[string]string{identity.TagAllowed: "user_scope"}))
		redemptions := w.grants("authorization_code")
		for name, s := range map[string]string{"redeemed": redeemed.Session, "open": open.Session, "visited": visited.Session, "held": held.Session} {
			out, err := w.Token(t.Context(), w.agentA, ask(wat, at("wide"), session(s)))
			wantError(t, name, err, fault.Denied, "claims")
			wantError(t, name, err, fault.Denied, "tabard provider update wide --allow-parameter claims")
			if !out.AccessToken.IsZero() {
				t.Errorf("%s: a token comes with the refusal", name)
			}
		}
		if w.refused("parameter-not-allowed") != 4 {
			t.Errorf("%d refusals are recorded, want 4", w.refused("parameter-not-allowed"))
		}
		_, err := w.Authorize(t.Context(), open.Session)
		wantEnding(t, "the link", err, broker.EndFailed)
		_, err = w.Callback(t.Context(), answer)
		wantEnding(t, "the provider's answer", err, broker.EndFailed)
		wantEnding(t, "the completion", w.complete(w.appA, held.Session, "alice"), broker.EndFailed)
		if n := w.grants("authorization_code"); n != redemptions {
			t.Errorf("%d codes were redeemed", n-redemptions)
		}
		w.pending(w.agentA, ask(wat, at("wide"), session(other.Session)))
		w.hold(other.Session)
	})
}

// M05: parameters make at most 20 connections of an agent and user to one provider, open sessions included.
func TestM05_AtMostTwentyConnections(t *testing.T) {
	engines(t, func(t *testing.T) {
		w := newWorld(t)
		w.createProvider("exchange", "StrictOauth2", exchanging(broker.OnBehalfOf{Grant: broker.TokenExchange, Actor: broker.ActorNone}))
		for flow, of := range map[string]func(*broker.Request){"consent": func(*broker.Request) {}, "M2M": machine, "exchange": onBehalf("exchange")} {
			t.Run(flow, func(t *testing.T) {
				wat := w.wat(w.agentA, "user-of-"+flow)
				if flow == "consent" {
					w.consent("user-of-"+flow, with("organization", "0"))
				}
				get := func(n int) error {
					_, err := w.Token(t.Context(), w.agentA, ask(wat, with("organization", strconv.Itoa(n)), of))
					return err
				}
				for n := range broker.MaxConnections {
					must(t, get(n))
				}
				sent := len(w.provider.Requests())
				wantError(t, "one more", get(99), fault.Throttled, "tabard connection list")
				if len(w.provider.Requests()) != sent {
					t.Error("the provider was asked for the one that is too many")
				}
				must(t, get(0))
				must(t, get(broker.MaxConnections-1))
				if _, err := w.Token(t.Context(), w.agentA, ask(w.wat(w.agentA, "bob"), with("organization", "99"))); err != nil {
					t.Errorf("another user: %v", err)
				}
			})
		}
	})
}
