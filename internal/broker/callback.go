package broker

import (
	"context"
	"net/url"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Answer is what a provider's redirect brought to the callback URL (RFC 6749 §4.1.2, RFC 9207 §2).
type Answer struct {
	CallbackID  string // from the path
	State       secret.Text
	Code        secret.Text
	Issuer      string
	HasIssuer   bool
	Error       string
	Description string
	Cookie      secret.Text // the visit's cookie, or empty
}

// Callback takes a provider's answer. The code is not redeemed: it is held, sealed, until the application has
// confirmed the user (Complete). It returns the address in the application that the browser goes to, with session_id
// and state.
//
// Checks, in this order, each before anything is used: the state with its cookie, spent at once (C05–C07); the
// provider in the path against the flow's (C10); the issuer (C09); only then what the answer says.
func (b *Broker) Callback(ctx context.Context, a Answer) (secret.Text, error) {
	visit, err := b.store.SpendVisit(ctx, hashText(a.State), hashText(a.Cookie))
	switch fault.CodeOf(err) {
	case "":
	case fault.NotFound:
		return secret.Text{}, errNoSession
	case fault.Denied:
		return secret.Text{}, ending(EndOtherBrowser, "", "the answer came to a browser that did not begin it")
	case fault.Conflict:
		return secret.Text{}, ending(EndUsed, "", "this answer was already taken")
	default:
		return secret.Text{}, err
	}
	flow, provider, _, err := b.openFlow(ctx, visit.Flow)
	if err != nil {
		return secret.Text{}, err
	}
	if why := a.mixedUp("provider", provider.CallbackID, visit.Issuer, visit.IssSent); why != "" {
		if err := b.flowEvent(ctx, access.Caller{}, flow, access.Callback, "refused", why).Wait(ctx); err != nil {
			return secret.Text{}, err
		}
		return secret.Text{}, ending(EndMixedUp, why, "%s", why)
	}
	if flow.State != FlowCreated {
		// The first valid answer won. What another tab says now, a refusal too, takes nothing away from it.
		return secret.Text{}, errGiven
	}
	if a.Error != "" || a.Code.IsZero() {
		if err := b.unionRefused(ctx, flow, a.Error); err != nil {
			return secret.Text{}, err
		}
		return secret.Text{}, b.declined(ctx, flow, a)
	}
	return b.hold(ctx, flow, visit, a)
}

// mixedUp says why the answer cannot be from who was asked, a provider or an issuer, or "" (RFC 9207 §2.4, threats C09,
// C10 and M01). A named issuer binds even where it was not promised.
func (a Answer) mixedUp(who, callbackID, issuer string, issSent bool) string {
	switch {
	case a.CallbackID != callbackID:
		return "the answer came to the callback URL of another " + who
	case a.HasIssuer && issuer != "" && a.Issuer != issuer:
		return "the answer names another issuer than that of the " + who
	case !a.HasIssuer && issSent:
		return "the answer names no issuer although the " + who + " promises one"
	}
	return ""
}

// words is the description without what only this browser may know, should the provider quote it.
func (a Answer) words() string {
	s := a.Description
	for _, t := range []secret.Text{a.State, a.Code, a.Cookie} {
		if !t.IsZero() {
			s = strings.ReplaceAll(s, t.Expose(), "[secret]")
		}
	}
	return s
}

// declined ends the flow with what the provider said instead of a code.
func (b *Broker) declined(ctx context.Context, flow Flow, a Answer) error {
	code, words := clean(a.Error, 64), clean(a.words(), 200)
	end, reason := EndFailed, "the provider answered "+code
	switch {
	case a.Error == "":
		reason = "the provider's answer has neither code nor error"
	case a.Error == "access_denied":
		end, reason = EndDeclined, "consent was declined at the provider (access_denied)"
	}
	if words != "" && a.Error != "" {
		reason += ": " + words
	}
	if _, err := b.store.FailFlow(ctx, flow.ID, reason, 0); err != nil {
		return err
	}
	if err := b.flowEvent(ctx, access.Caller{}, flow, access.Callback, string(end), reason).Wait(ctx); err != nil {
		return err
	}
	return ending(end, words, "%s", reason)
}

// hold seals the code into the flow. The first valid answer wins.
func (b *Broker) hold(ctx context.Context, flow Flow, visit Visit, a Answer) (secret.Text, error) {
	verifier, err := b.vault.Open(ctx, verifierRef(flow, visit.State), visit.Verifier)
	if err != nil {
		return secret.Text{}, err
	}
	code, err := b.vault.Seal(ctx, flow.ref("code"), a.Code)
	if err != nil {
		return secret.Text{}, err
	}
	held, err := b.vault.Seal(ctx, flow.ref("verifier"), verifier)
	if err != nil {
		return secret.Text{}, err
	}
	if err := b.store.HoldCode(ctx, flow.ID, code, held); err != nil {
		if fault.CodeOf(err) == fault.Conflict {
			return secret.Text{}, errGiven
		}
		return secret.Text{}, err
	}
	if err := b.flowEvent(ctx, access.Caller{}, flow, access.Callback, "code_held", "").Wait(ctx); err != nil {
		return secret.Text{}, err
	}
	session, err := b.vault.Open(ctx, flow.ref("session"), flow.Session)
	if err != nil {
		return secret.Text{}, err
	}
	var custom secret.Text
	if len(flow.CustomState) > 0 {
		if custom, err = b.vault.Open(ctx, flow.ref("custom_state"), flow.CustomState); err != nil {
			return secret.Text{}, err
		}
	}
	return secret.New(returnTo(flow.ReturnURL, session.Expose(), custom.Expose())), nil
}

// returnTo appends session_id and state to a registered return URL, of which nothing else changes.
func returnTo(raw, session, state string) string {
	q := "session_id=" + url.QueryEscape(session)
	if state != "" {
		q += "&state=" + url.QueryEscape(state)
	}
	switch {
	case !strings.Contains(raw, "?"):
		return raw + "?" + q
	case strings.HasSuffix(raw, "?") || strings.HasSuffix(raw, "&"):
		return raw + q
	}
	return raw + "&" + q
}

// clean bounds foreign text and keeps only printable ASCII (what RFC 6749 §4.1.2.1 allows).
func clean(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}
