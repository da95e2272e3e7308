package tabard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/api/calendar/v3"
	"google.golang.org/api/option"

	"github.com/tabard-id/tabard"
)

// A whole agent: it takes a prompt together with the user's token, and books a meeting in the user's own calendar.
func Example() {
	need := tabard.OAuth2{
		Provider: "google",
		Scopes:   []string{calendar.CalendarEventsScope},
		Hosts:    []string{"www.googleapis.com"},
	}
	client, err := tabard.New(context.Background(), tabard.Config{
		Workload:  "calendar-agent",
		ReturnURL: "http://localhost:9090/connected",
	})
	if err != nil {
		log.Fatal(err)
	}
	agent := func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		service, err := calendar.NewService(ctx, option.WithHTTPClient(client.HTTPClient(ctx, need)))
		if err != nil {
			http.Error(w, "calendar is not available", http.StatusInternalServerError)
			return
		}
		event, err := service.Events.Insert("primary", &calendar.Event{Summary: "Lunch with Sam"}).Context(ctx).Do()
		if consent, ok := errors.AsType[*tabard.ConsentRequiredError](err); ok {
			_ = json.NewEncoder(w).Encode(map[string]string{"please_open": consent.URL})
			return
		}
		if err != nil {
			http.Error(w, "the event could not be booked", http.StatusBadGateway)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"booked": event.HtmlLink})
	}
	http.Handle("POST /invocations", client.Middleware(http.HandlerFunc(agent)))
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}

func ExampleNew() {
	// Region, credentials and AWS_ENDPOINT_URL_BEDROCK_AGENTCORE come from the environment; `tabard env` prints them.
	client, err := tabard.New(context.Background(), tabard.Config{Workload: "calendar-agent"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client)
}

// started stands for what an agent has at hand: its client, and the context of a request of alice's. The service behind
// it knows no consent of hers yet; she gives it as soon as she has the link.
func started() (client *tabard.Client, ctx context.Context) {
	f := newFake()
	consenting(f, 1)
	conf := awsConfig()
	conf.HTTPClient = f
	client, err := tabard.New(context.Background(), tabard.Config{AWS: &conf, Endpoint: "http://127.0.0.1:1",
		Workload: "calendar-agent", PollInterval: time.Millisecond})
	if err != nil {
		panic(err)
	}
	return client, tabard.WithUserToken(context.Background(), "alice.b.c")
}

func ExampleClient_Token() {
	client, ctx := started()
	token, err := client.Token(ctx, tabard.OAuth2{Provider: "github", Scopes: []string{"repo"}})
	if err != nil {
		fmt.Println(err) // or errors.AsType, see Wait
		return
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.github.com/user/repos", nil)
	token.SetAuthHeader(req)
	// Output: tabard: github: the user has to consent first, at the URL of this ConsentRequiredError
}

func ExampleClient_Wait() {
	client, ctx := started()
	need := tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}}

	token, err := client.Token(ctx, need)
	if consent, ok := errors.AsType[*tabard.ConsentRequiredError](err); ok {
		fmt.Println("Please open", consent.URL)
		token, err = client.Wait(ctx, need, consent.Consent)
	}
	fmt.Println(token, err)
	// Output:
	// Please open http://127.0.0.1/identities/oauth2/authorize?request_uri=c2Vzc2lvbg
	// tabard.Token([secret]) <nil>
}

func ExampleWithConsentHandler() {
	client, ctx := started()
	need := tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}}

	// The call brings the link to the user by itself, and returns once the user has consented.
	ctx = tabard.WithConsentHandler(ctx, func(_ context.Context, c tabard.Consent) error {
		fmt.Println("Please open", c.URL)
		return nil
	})
	token, err := client.Token(ctx, need)
	fmt.Println(token, err)
	// Output:
	// Please open http://127.0.0.1/identities/oauth2/authorize?request_uri=c2Vzc2lvbg
	// tabard.Token([secret]) <nil>
}

func ExampleClient_Reconsent() {
	client, ctx := started()
	// The user wants to connect another account.
	_, err := client.Reconsent(ctx, tabard.OAuth2{Provider: "google", CustomParameters: map[string]string{"prompt": "select_account"}})
	fmt.Println(errors.Is(err, tabard.ErrConsentRequired))
	// Output: true
}

func ExampleClient_TokenSource() {
	client, ctx := started()
	need := tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}}

	service, err := calendar.NewService(ctx, option.WithTokenSource(client.TokenSource(ctx, need)))
	if err != nil {
		log.Fatal(err)
	}
	_, err = service.Events.List("primary").Context(ctx).Do()
	fmt.Println(errors.Is(err, tabard.ErrConsentRequired))
	// Output: true
}

func ExampleClient_ReportInvalid() {
	client, ctx := started()
	ctx = tabard.WithConsentHandler(ctx, func(context.Context, tabard.Consent) error { return nil })
	need := tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}}
	call := func(*tabard.Token) (status int) { return http.StatusUnauthorized } // some protocol of your own

	token, err := client.Token(ctx, need)
	if err == nil && call(token) == http.StatusUnauthorized {
		token, err = client.ReportInvalid(ctx, need, token) // refreshed, or the user has to consent again
	}
	fmt.Println(token, err)
	// Output: tabard.Token([secret]) <nil>
}

func ExampleTokenSource_ReportInvalid() {
	client, ctx := started()
	ctx = tabard.WithConsentHandler(ctx, func(context.Context, tabard.Consent) error { return nil })
	source := client.TokenSource(ctx, tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}})

	token, err := source.Token()
	if err != nil {
		log.Fatal(err)
	}
	// The provider answered 401 to it.
	if token, err = source.ReportInvalid(token); errors.Is(err, tabard.ErrConsentRequired) {
		log.Fatal("connect your account again")
	}
	fmt.Println(token.Type(), err)
	// Output: Bearer <nil>
}

func ExampleClient_HTTPClient() {
	client, ctx := started()
	need := tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}}

	_, err := client.HTTPClient(ctx, need).Get("https://www.googleapis.com/calendar/v3/users/me/calendarList")
	fmt.Println(errors.Is(err, tabard.ErrConsentRequired))
	// Output: true
}

func ExampleClient_Transport() {
	client, ctx := started()
	need := tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}}

	// One client for all users: each request acts for the user in its own context.
	shared := &http.Client{Transport: client.Transport(need, nil), Timeout: 30 * time.Second}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://www.googleapis.com/calendar/v3/users/me/calendarList", nil)
	_, err := shared.Do(req)
	fmt.Println(errors.Is(err, tabard.ErrConsentRequired))
	// Output: true
}

func ExampleClient_APIKey() {
	client, ctx := started()
	key, err := client.APIKey(ctx, "weather")
	if err != nil {
		log.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://weather.example/today", nil)
	key.SetHeader(req, "X-Api-Key")
	fmt.Println(key)
	// Output: tabard.APIKey([secret])
}

// Booking is what the model fills in.
type Booking struct {
	Summary    string
	Start, End time.Time
}

// book books a meeting in the calendar of the token's user.
func book(ctx context.Context, token *tabard.Token, in Booking) (string, error) {
	service, err := calendar.NewService(ctx, option.WithTokenSource(oauth2.StaticTokenSource(token.OAuth2())))
	if err != nil {
		return "", err
	}
	event, err := service.Events.Insert("primary", &calendar.Event{
		Summary: in.Summary,
		Start:   &calendar.EventDateTime{DateTime: in.Start.Format(time.RFC3339)},
		End:     &calendar.EventDateTime{DateTime: in.End.Format(time.RFC3339)},
	}).Context(ctx).Do()
	if err != nil {
		return "", err
	}
	return event.HtmlLink, nil
}

func ExampleTool() {
	client, ctx := started()
	need := tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}}

	// tool is a func(context.Context, Booking) (string, error): what an agent framework registers.
	tool := tabard.Tool(client, need, book)
	_, err := tool(ctx, Booking{Summary: "Lunch with Sam"})
	fmt.Println(errors.Is(err, tabard.ErrConsentRequired))
	// Output: true
}

// Creds is all that a trip planner needs.
type Creds struct {
	Calendar *http.Client  `tabard:"google,scopes=https://www.googleapis.com/auth/calendar.events,hosts=www.googleapis.com"`
	Mail     *tabard.Token `tabard:"microsoft,scopes=Mail.Send offline_access"`
	Weather  tabard.APIKey `tabard:"weather"`
}

func ExampleFields() {
	client, ctx := started()
	if err := (tabard.Fields[Creds]{}).Validate(); err != nil {
		log.Fatal(err) // a mistake in a tag, found at start
	}
	plan := tabard.Tool(client, tabard.Fields[Creds]{}, func(_ context.Context, creds Creds, city string) (string, error) {
		return city + " with " + fmt.Sprint(creds.Weather), nil
	})
	_, err := plan(ctx, "Lisbon")
	fmt.Println(err)
	// Output: Creds.Calendar: tabard: google: the user has to consent first, at the URL of this ConsentRequiredError
}

func ExampleClient_Fill() {
	client, ctx := started()
	ctx = tabard.WithConsentHandler(ctx, func(context.Context, tabard.Consent) error { return nil })
	var creds Creds
	if err := client.Fill(ctx, &creds); err != nil {
		log.Fatal(err)
	}
	fmt.Println(creds.Mail, creds.Weather)
	// Output: tabard.Token([secret]) tabard.APIKey([secret])
}

func ExampleCarry() {
	client, _ := started()
	need := tabard.OAuth2{Provider: "google", Scopes: []string{calendar.CalendarEventsScope}}
	jobs := make(chan func(), 1)
	http.Handle("POST /later", client.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := tabard.Carry(context.Background(), r.Context()) // the user, without the request's end
		jobs <- func() {
			if _, err := client.Token(ctx, need); err != nil {
				log.Print(err)
			}
		}
		w.WriteHeader(http.StatusAccepted)
	})))
}

// The web app, not the agent, serves the return URL: it knows who is logged in in this browser.
func ExampleClient_CompleteHandler() {
	app, _ := started()
	login := func(*http.Request) (jwt, state string, err error) { return "", "", http.ErrNoCookie }

	http.Handle("GET /connected", app.CompleteHandler(
		func(r *http.Request, state string) (tabard.User, error) {
			jwt, remembered, err := login(r)
			if err != nil || state != remembered {
				return tabard.User{}, errors.New("log in first")
			}
			return tabard.UserToken(jwt), nil
		},
		func(w http.ResponseWriter, r *http.Request, err error) {
			if err != nil {
				http.Redirect(w, r, "/?connected=no", http.StatusSeeOther)
				return
			}
			http.Redirect(w, r, "/?connected=yes", http.StatusSeeOther)
		}))
}

func ExampleError() {
	client, _ := started()
	_, err := client.Token(context.Background(), tabard.OAuth2{Provider: "google"})
	switch {
	case errors.Is(err, tabard.ErrConsentRequired), errors.Is(err, tabard.ErrConsentExpired):
		fmt.Println("connect your account")
	case errors.Is(err, tabard.ErrUnauthenticated), errors.Is(err, tabard.ErrNoIdentity):
		fmt.Println("log in again")
	case errors.Is(err, tabard.ErrUnavailable), errors.Is(err, tabard.ErrThrottled):
		fmt.Println("try again later")
	default:
		if e, ok := errors.AsType[*tabard.Error](err); ok {
			fmt.Println("report request", e.RequestID)
		}
	}
	// Output: log in again
}
