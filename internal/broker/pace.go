package broker

import (
	"context"
	"errors"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/pace"
)

// paces bound what callers can make providers be asked (threat M14): a model that asks again and again, or a stolen
// key, must not have this server hammer anybody. What is not here ends by itself: a stored token serves for its life,
// metadata and keys have their own memory, a code is spent with its visit.
type paces struct {
	turns   *pace.Turns // of fetches and refreshes, by token: one at a time, pauses while they fail
	forced  *pace.Pace  // fetches by force of one token
	fetches *pace.Pace  // fetches of an agent and user at a provider, whatever they name
	redeems *pace.Pace  // codes of an agent and user at a provider
	tests   *pace.Pace  // tests of one provider
	tested  *pace.Pace  // of all providers of an account: more of them are made in no time, and may be at one address
}

func newPaces(now func() time.Time) paces {
	return paces{
		turns: pace.NewTurns(now), forced: pace.New(now, 3, reportPause), fetches: pace.New(now, 30, 3*time.Second),
		redeems: pace.New(now, 30, 3*time.Second), tests: pace.New(now, 5, 10*time.Second),
		tested: pace.New(now, 60, time.Second),
	}
}

// fetch counts a fetch of the connection's token, or returns how long to wait, and why.
func (p paces) fetch(g grounds, r Request, c Connection) (time.Duration, string) {
	if r.Force {
		if wait := p.forced.Take(c.Account, c.Key); wait > 0 {
			return wait, "it was fetched by force a moment ago: ask without forceAuthentication"
		}
	}
	return p.fetches.Take(c.Account, c.family(g.provider)), "too many tokens of this provider were asked for"
}

// family is all tokens of c's agent and user at the provider.
func (c Connection) family(p Provider) string { return digest(c.Workload, c.User, p.UID) }

// renewable reports whether a refresh token may bring another access token.
func (c Connection) renewable() bool { return len(c.Refresh) > 0 || c.Lineage != "" }

// lives reports whether the access token has not ended, as far as anybody knows.
func (c Connection) lives(now time.Time) bool { return c.Expires.IsZero() || c.Expires.After(now) }

// asked reports whether the failure is that of a provider that was asked, or could not be.
func asked(err error) bool {
	_, ok := errors.AsType[*UpstreamError](err)
	return ok
}

// seconds is what Retry-After says too.
func seconds(wait time.Duration) int { return int((wait + time.Second - 1) / time.Second) }

// slow refuses a request for a token that has to wait, and records that. The policies have allowed it already.
func (b *Broker) slow(ctx context.Context, g grounds, connection string, wait time.Duration, why string) error {
	f := g.facts
	f.Connection, f.Outcome = connection, "paused"
	return b.guard.Refuse(ctx, g.caller, access.GetResourceOauth2Token, "pause", f,
		pace.Slow(wait, "provider %s is not asked for this token now, because %s: try again in %d seconds",
			g.provider.Name, why, seconds(wait)))
}

// slowTest refuses a test of a provider that was tested too often.
func (b *Broker) slowTest(ctx context.Context, caller access.Caller, p Provider) error {
	why := "provider " + p.Name + " was tested several times just now"
	wait := b.paces.tests.Take(caller.Account, p.UID)
	if wait == 0 {
		why, wait = "very many providers were tested just now", b.paces.tested.Take(caller.Account, "")
	}
	if wait == 0 {
		return nil
	}
	return b.guard.Refuse(ctx, caller, access.TestProvider, "pause", access.Facts{Provider: p.Name, Outcome: "paused"},
		pace.Slow(wait, "%s: try again in %d seconds", why, seconds(wait)))
}

// slowRedeem postpones a code whose turn has not come: it stays where it is, and CompleteResourceTokenAuth can be
// called again. ask is Wait before anything is begun, since of several calls for one code only one redeems it, and Take
// then.
func (b *Broker) slowRedeem(ctx context.Context, caller access.Caller, flow Flow, ask func(access.Account, string) time.Duration) error {
	wait := ask(flow.Account, digest(flow.Workload, flow.User, flow.Provider))
	if wait == 0 {
		return nil
	}
	return b.guard.Refuse(ctx, caller, access.CompleteResourceTokenAuth, "pause", flow.facts("paused", ""),
		pace.Slow(wait, "too many codes were redeemed for this user just now: try again in %d seconds", seconds(wait)))
}
