package main

import (
	"fmt"
	"strings"
)

// The lanes of the sequence diagram, from left to right.
const (
	lanePerson = iota
	laneLogin
	laneWeb
	laneAgent
	laneTabard
	laneCalendar
)

func laneNames() []string {
	return []string{"Browser", "Login", "Web app", "Agent", "Tabard", "Calendar"}
}

// step is one arrow of the diagram.
type step struct {
	From, To int
	Token    string // the kind of token that travels, or ""
	Text     string
	Source   string // the audit record it was drawn from; "" where only the web app was there
	Denied   bool
}

// Arrow names both ends, for those who read the diagram as a list.
func (s step) Arrow() string { return laneNames()[s.From] + " → " + laneNames()[s.To] }

// Class says where the arrow is drawn and how.
func (s step) Class() string {
	left, right, way := s.From, s.To, "forth"
	if left > right {
		left, right, way = right, left, "back"
	}
	c := fmt.Sprintf("step l%d r%d %s", left, right, way)
	if s.Token != "" {
		c += " " + s.Token
	}
	if s.Source == "" {
		c += " app"
	}
	if s.Denied {
		c += " denied"
	}
	return c
}

// diagram draws what happened between a person's request and now from the audit records. What Tabard cannot see (the
// login, the prompt, the calendar's own API) is added from what the web app knows, without a source.
func diagram(records []record, heard progress) []step {
	if len(records) == 0 {
		return nil
	}
	steps := []step{
		{From: lanePerson, To: laneLogin, Text: "logs in (code, PKCE)"},
		{From: laneLogin, To: laneWeb, Token: humanToken, Text: "access token for the web app"},
		{From: laneWeb, To: laneAgent, Token: humanToken, Text: "the prompt, with the user's own token"},
	}
	pending := 0
	for _, r := range records {
		if r.Outcome == "pending" && !r.denied() {
			pending++
		}
	}
	polled := false
	for _, r := range records {
		if r.Outcome == "pending" && !r.denied() {
			if polled {
				continue
			}
			polled = true
		}
		drawn := draw(r, pending)
		for i := range drawn {
			drawn[i].Source = fmt.Sprintf("audit %d", r.Sequence)
			drawn[i].Denied = r.denied()
		}
		steps = append(steps, drawn...)
		if r.Outcome == "consent_required" {
			steps = append(steps, step{From: laneAgent, To: lanePerson, Text: "“please allow this”, with the link"})
		}
	}
	if heard.Booked != nil && heard.Booked.Link != "" {
		steps = append(steps, step{From: laneAgent, To: laneCalendar, Token: providerToken, Text: "events.insert: " + heard.Booked.Summary})
	}
	return steps
}

// draw turns one record into arrows.
func draw(r record, pending int) []step {
	if r.denied() {
		from := laneAgent
		if r.Action == "CompleteResourceTokenAuth" {
			from = laneWeb
		}
		return []step{{From: from, To: laneTabard, Text: r.Action + " refused: " + strings.ReplaceAll(r.Rule, "-", " ")}}
	}
	ask := step{From: laneAgent, To: laneTabard, Token: workloadToken, Text: "asks for a calendar token"}
	give := step{From: laneTabard, To: laneAgent, Token: providerToken, Text: fmt.Sprintf("released from the vault, generation %d", r.Generation)}
	switch r.Action + " " + r.Outcome {
	case "GetWorkloadAccessTokenForJWT ":
		return []step{{From: laneAgent, To: laneTabard, Token: humanToken, Text: "asks for a token as " + r.WorkloadName + ", for this user"}}
	case "GetWorkloadAccessTokenForJWT minted":
		return []step{{From: laneTabard, To: laneAgent, Token: workloadToken, Text: "user verified: one agent, one user"}}
	case "GetResourceOauth2Token consent_required":
		return []step{ask, {From: laneTabard, To: laneAgent, Text: "nothing stored that serves: authorization URL"}}
	case "GetResourceOauth2Token pending":
		return []step{{From: laneAgent, To: laneTabard, Token: workloadToken, Text: "is it done? not yet" + times(pending)}}
	case "GetResourceOauth2Token released":
		return []step{ask, give}
	case "GetResourceOauth2Token refresh":
		ask.Text = "asks; the stored token is about to end"
		return []step{ask}
	case "RefreshTokens refreshed":
		return []step{{From: laneTabard, To: laneCalendar, Text: "refresh token, which never leaves the vault otherwise"},
			{From: laneCalendar, To: laneTabard, Token: providerToken, Text: "new tokens, sealed"}, give}
	case "Authorize sent_to_provider":
		return []step{{From: lanePerson, To: laneTabard, Text: "opens the link"},
			{From: laneTabard, To: laneCalendar, Text: "sent on: state, PKCE S256"}}
	case "Callback code_held":
		return []step{{From: laneCalendar, To: laneTabard, Text: "allowed: the code is held, not redeemed"}}
	case "CompleteResourceTokenAuth complete":
		return []step{{From: laneWeb, To: laneTabard, Token: humanToken, Text: "this browser's user is back"}}
	case "RedeemCode redeemed":
		return []step{{From: laneTabard, To: laneCalendar, Text: "same user: code and PKCE verifier"},
			{From: laneCalendar, To: laneTabard, Token: providerToken, Text: fmt.Sprintf("tokens, sealed as generation %d", r.Generation)}}
	}
	text := r.Action
	if r.Outcome != "" {
		text += ": " + strings.ReplaceAll(r.Outcome, "_", " ")
	}
	if r.Detail != "" {
		text += ", " + r.Detail
	}
	return []step{{From: laneAgent, To: laneTabard, Text: text}}
}

func times(n int) string {
	if n == 1 {
		return ""
	}
	return fmt.Sprintf(" (asked %d times)", n)
}
