package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/oauth2"
	"google.golang.org/api/calendar/v3"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/option"

	"github.com/tabard-id/tabard"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/secret"
)

// pollInterval is how often an agent looks whether its user has consented.
const pollInterval = 500 * time.Millisecond

// agentConfig is what an agent is told when it starts. It knows no client secret, no refresh token and no user.
type agentConfig struct {
	Workload    string
	Tabard      string                  // where Tabard answers
	Credentials aws.CredentialsProvider // the agent's own access key
	Calendar    string                  // where the Calendar API answers; "" is Google
	Now         func() time.Time
	Zone        *time.Location
}

// agent is a service that books meetings. It takes a prompt together with the user's own token and answers with lines
// of JSON as things happen.
type agent struct {
	agentConfig
	client  *tabard.Client
	need    tabard.OAuth2
	book    func(context.Context, booking) (booked, error)
	witness *witness
}

// newAgent is all that an agent's author writes to get at a user's calendar: what the tool needs, and a function that
// gets it. Everything about consent, refresh and expiry is the SDK's.
func newAgent(ctx context.Context, c agentConfig) (*agent, error) {
	a := &agent{agentConfig: c, witness: newWitness()}
	a.need = tabard.OAuth2{
		Provider: providerName,
		Scopes:   []string{calendar.CalendarEventsScope},
		// Without it neither Google nor the stand-in gives a refresh token.
		CustomParameters: map[string]string{"access_type": "offline"},
	}
	if err := a.need.Validate(); err != nil {
		return nil, err
	}
	var err error
	a.client, err = tabard.New(ctx, tabard.Config{
		Workload: c.Workload, Endpoint: c.Tabard, PollInterval: pollInterval, Now: c.Now,
		AWS: &aws.Config{Region: daemon.DefaultRegion, Credentials: c.Credentials, HTTPClient: &http.Client{Transport: a.witness}},
	})
	if err != nil {
		return nil, err
	}
	a.book = tabard.Tool(a.client, a.need, a.insert)
	return a, nil
}

// booked is an event in the user's calendar, with what is known of the token that put it there.
type booked struct {
	Summary    string    `json:"summary"`
	Link       string    `json:"link"`
	Start      time.Time `json:"start"`
	End        time.Time `json:"end"`
	Connection stored    `json:"connection"`
	token      tokenView
}

// stored is what the answer to the agent says about the grant in the vault.
type stored struct {
	ID      string    `json:"id"`
	State   string    `json:"state"`
	Scopes  []string  `json:"scopes"`
	Expires time.Time `json:"expires,omitzero"`
}

// insert is the tool: it gets the token of the user for whom it is called, and an instruction.
func (a *agent) insert(ctx context.Context, token *tabard.Token, in booking) (booked, error) {
	options := []option.ClientOption{option.WithHTTPClient(oauth2.NewClient(ctx, oauth2.StaticTokenSource(token.OAuth2())))}
	if a.Calendar != "" {
		options = append(options, option.WithEndpoint(a.Calendar))
	}
	service, err := calendar.NewService(ctx, options...)
	if err != nil {
		return booked{}, err
	}
	event, err := service.Events.Insert("primary", &calendar.Event{
		Summary: in.Summary,
		Start:   &calendar.EventDateTime{DateTime: in.Start.Format(time.RFC3339), TimeZone: a.Zone.String()},
		End:     &calendar.EventDateTime{DateTime: in.End.Format(time.RFC3339), TimeZone: a.Zone.String()},
	}).Context(ctx).Do()
	if err != nil {
		return booked{}, err
	}
	return booked{Summary: event.Summary, Link: event.HtmlLink, Start: in.Start, End: in.End, Connection: storedIn(token), token: a.providerView(token)}, nil
}

func storedIn(t *tabard.Token) stored {
	return stored{ID: t.ConnectionID, State: t.ConnectionState, Scopes: t.Scopes, Expires: t.Expiry}
}

func (a *agent) providerView(t *tabard.Token) tokenView {
	audience := "the calendar's API"
	if a.Calendar == "" {
		audience = "Google's API"
	}
	return tokenView{Kind: providerToken, Holder: "agent", Audience: audience, Fingerprint: secret.New(t.AccessToken).Fingerprint(), Expires: t.Expiry}
}

// invocation is the body of a request. The user is not in it: they come with the Authorization header.
type invocation struct {
	Prompt string `json:"prompt"`
	// State comes back with the browser after a consent, so that the web app knows that it asked.
	State string `json:"state"`
}

// news is one line of an answer. Each has one of the first four members.
type news struct {
	Understood *understanding `json:"understood,omitempty"`
	Consent    *consentNews   `json:"consent,omitempty"`
	Booked     *booked        `json:"booked,omitempty"`
	Failed     *failure       `json:"failed,omitempty"`
	Tokens     []tokenView    `json:"tokens,omitempty"`
	// Requests are the ids of the agent's requests to Tabard, by which the audit records are found.
	Requests []string `json:"requests,omitempty"`
}

type understanding struct {
	Summary   string    `json:"summary"`
	Start     time.Time `json:"start,omitzero"`
	End       time.Time `json:"end,omitzero"`
	Assumed   []string  `json:"assumed,omitempty"`
	Reconnect bool      `json:"reconnect,omitempty"`
}

// consentNews has a link for the user's browser.
type consentNews struct {
	URL      string   `json:"url"`
	Provider string   `json:"provider"`
	Scopes   []string `json:"scopes"`
}

// failure says why there is no event. Code is one of tabard's codes, "prompt" or "calendar".
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Handler serves POST /invocations.
func (a *agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /invocations", a.invoke)
	return a.client.Middleware(mux)
}

// invoke answers in lines while it works. It ends when its request does, also in the middle of waiting for a consent.
func (a *agent) invoke(w http.ResponseWriter, r *http.Request) {
	var in invocation
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 16<<10)).Decode(&in); err != nil {
		http.Error(w, "the body is not an invocation", http.StatusBadRequest)
		return
	}
	_, jwt, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	ctx, saw := watch(r.Context(), secret.New(jwt).Fingerprint())
	ctx = tabard.WithCustomState(ctx, in.State)
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	lines := json.NewEncoder(w)
	say := func(n news) error {
		wat, requests := saw.seen()
		n.Requests = requests
		if wat.Fingerprint != "" {
			n.Tokens = append([]tokenView{wat}, n.Tokens...)
		}
		if err := lines.Encode(n); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	}
	// The tool's call brings the link to the user by itself, and goes on once the user has consented.
	ctx = tabard.WithConsentHandler(ctx, func(_ context.Context, c tabard.Consent) error {
		return say(news{Consent: &consentNews{URL: c.URL, Provider: c.Provider, Scopes: c.Scopes}})
	})
	if err := a.serve(ctx, in.Prompt, say); err != nil {
		_ = say(news{Failed: describe(err)}) // nobody listens: then there is nobody to tell
	}
}

func (a *agent) serve(ctx context.Context, prompt string, say func(news) error) error {
	if wantsReconnect(prompt) {
		if err := say(news{Understood: &understanding{Summary: "Connect a calendar anew", Reconnect: true}}); err != nil {
			return err
		}
		again := a.need
		again.CustomParameters = map[string]string{"access_type": "offline", "prompt": "select_account consent"}
		token, err := a.client.Reconsent(ctx, again)
		if err != nil {
			return err
		}
		return say(news{Booked: &booked{Summary: "Calendar connected", Connection: storedIn(token)}, Tokens: []tokenView{a.providerView(token)}})
	}
	what, err := understand(prompt, a.Now().In(a.Zone))
	if err != nil {
		return &misunderstanding{err}
	}
	if err := say(news{Understood: &understanding{Summary: what.Summary, Start: what.Start, End: what.End, Assumed: what.Assumed}}); err != nil {
		return err
	}
	event, err := a.book(ctx, what)
	if err != nil {
		return err
	}
	return say(news{Booked: &event, Tokens: []tokenView{event.token}})
}

// misunderstanding is the prompt's fault.
type misunderstanding struct{ error }

// describe turns an error into what the user may read.
func describe(err error) *failure {
	if m, ok := errors.AsType[*misunderstanding](err); ok {
		return &failure{"prompt", m.Error()}
	}
	if errors.Is(err, tabard.ErrUnauthenticated) {
		return &failure{string(tabard.ErrUnauthenticated), "your login has ended; please log out and in again"}
	}
	if e, ok := errors.AsType[*tabard.Error](err); ok {
		return &failure{string(e.Code), e.Message}
	}
	if e, ok := errors.AsType[*googleapi.Error](err); ok {
		return &failure{"calendar", "the calendar answered " + http.StatusText(e.Code)}
	}
	if errors.Is(err, context.Canceled) {
		return &failure{"ended", "the request was given up"}
	}
	return &failure{"agent", "the agent could not do it"}
}
