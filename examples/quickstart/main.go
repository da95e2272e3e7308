// Command quickstart is a small agent with its web application: it shows what is next in its user's calendar. README.md
// says how to run it.
//
// One process and one user, with the root access key that `tabard env` points at: that is for a laptop. A real
// application differs in three ways. Its users have a login of their own, and the agent takes the token of that login
// (Client.Middleware) instead of a name. The agent has a key of a principal with the role agent, and what serves the
// return URL has one with the role consent-app. And who sits at the browser comes from the application's login session.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcorecontrol"
	"google.golang.org/api/calendar/v3"
	"google.golang.org/api/option"

	"github.com/tabard-id/tabard"
)

const (
	workload = "quickstart"
	me       = "me" // the only user
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "8081"))
	if err != nil {
		log.Fatal(err)
	}
	site := "http://" + listener.Addr().String()
	returnURL := site + "/connected"
	if err := register(context.Background(), returnURL); err != nil {
		log.Fatal(err)
	}
	client, err := tabard.New(context.Background(), tabard.Config{Workload: workload, ReturnURL: returnURL})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /{$}", upcoming(client))
	http.Handle("GET /connected", client.CompleteHandler(whoIsBack, connected))
	fmt.Println("Please open", site)
	log.Fatal(http.Serve(listener, nil))
}

// register is what an administrator does once: the agent gets a name, and browsers may come back to returnURL.
func register(ctx context.Context, returnURL string) error {
	conf, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	control := bedrockagentcorecontrol.NewFromConfig(conf)
	_, err = control.CreateWorkloadIdentity(ctx, &bedrockagentcorecontrol.CreateWorkloadIdentityInput{
		Name: aws.String(workload), AllowedResourceOauth2ReturnUrls: []string{returnURL}})
	if err != nil { // it is there from an earlier run, or the update says what is wrong
		_, err = control.UpdateWorkloadIdentity(ctx, &bedrockagentcorecontrol.UpdateWorkloadIdentityInput{
			Name: aws.String(workload), AllowedResourceOauth2ReturnUrls: []string{returnURL}})
	}
	return err
}

// upcoming is the agent's tool behind a page. It says what it needs, and calls Google with Google's own client.
func upcoming(client *tabard.Client) http.HandlerFunc {
	need := tabard.OAuth2{
		Provider:         "google-calendar",
		Scopes:           []string{calendar.CalendarEventsScope},
		CustomParameters: map[string]string{"access_type": "offline"}, // asks for a refresh token
	}
	return func(w http.ResponseWriter, r *http.Request) {
		state := rand.Text()
		ctx := tabard.WithCustomState(tabard.WithUserID(r.Context(), me), state)
		service, err := calendar.NewService(ctx, option.WithHTTPClient(client.HTTPClient(ctx, need)),
			option.WithEndpoint(os.Getenv("CALENDAR_ENDPOINT"))) // Google's own where that is empty
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		events, err := service.Events.List("primary").TimeMin(time.Now().Format(time.RFC3339)).SingleEvents(true).OrderBy("startTime").Context(ctx).Do()
		if consent, ok := errors.AsType[*tabard.ConsentRequiredError](err); ok {
			http.SetCookie(w, &http.Cookie{Name: "quickstart_state", Value: state, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
			http.Redirect(w, r, consent.URL, http.StatusSeeOther)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintln(w, "Next in your calendar:")
		for _, e := range events.Items {
			fmt.Fprintln(w, "-", cmp.Or(e.Summary, "(busy)"))
		}
	}
}

// whoIsBack says who sits at a browser that comes back from consent, if it is the browser that was sent there.
func whoIsBack(r *http.Request, state string) (tabard.User, error) {
	if c, err := r.Cookie("quickstart_state"); err != nil || c.Value != state {
		return tabard.User{}, errors.New("this browser did not ask for that consent")
	}
	return tabard.UserID(me), nil
}

func connected(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
