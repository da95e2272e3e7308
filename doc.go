// Package tabard gives an AI agent the credentials that its tools need, on behalf of the user it works for.
//
// It talks to Tabard, and to Amazon Bedrock AgentCore Identity, with the official AWS client underneath: region,
// credentials, retries and the endpoint come from where they always come from (AWS_REGION, AWS_PROFILE,
// AWS_ENDPOINT_URL_BEDROCK_AGENTCORE, …).
//
// # Three tokens
//
// Three tokens take part, and none ever stands for another:
//
//   - the user's token, from the user's own login. It comes with the request; Middleware puts it into the context.
//   - the workload access token, bound to this agent and this user. The package mints, keeps and renews it.
//   - the provider token (Google's, GitHub's, …), which the user consented to and the service keeps. A tool gets it.
//
// Only the last one is ever handed to your code, and it hides when it is printed.
//
// # Quick start
//
// Say what the tool needs, once:
//
//	need := tabard.OAuth2{
//		Provider: "google",
//		Scopes:   []string{"https://www.googleapis.com/auth/calendar.events"},
//	}
//
// Make one client, and let the user's identity in:
//
//	client, err := tabard.New(ctx, tabard.Config{Workload: "calendar-agent", ReturnURL: "https://app.example/connected"})
//	…
//	http.Handle("POST /invocations", client.Middleware(agent))
//
// Use it wherever a context arrives:
//
//	service, err := calendar.NewService(ctx, option.WithHTTPClient(client.HTTPClient(ctx, need)))
//
// TokenSource, Transport, Token, Tool and Fill take the same declaration; pick the one that fits the code at hand. API
// keys have APIKey and KeyFrom.
//
// # Consent
//
// If the user has not consented yet, the call returns *ConsentRequiredError with a URL for the user's browser:
//
//	if consent, ok := errors.AsType[*tabard.ConsentRequiredError](err); ok {
//		reply("Please open " + consent.URL)
//		token, err = client.Wait(ctx, need, consent.Consent)
//	}
//
// With a handler (Config.OnConsent or WithConsentHandler) the call shows the URL through it and waits by itself. The
// web app that the browser returns to confirms who consented, with Complete or CompleteHandler; until then nothing is
// redeemed, so that a link which another person opens gives nobody anything.
//
// # Expiry
//
// Tabard tells when a token ends, what was granted and under which connection; AWS does not, and then Token.Expiry is
// zero and Token.Scopes nil. The service keeps tokens and refreshes them, so Token simply asks again each time;
// TokenSource and HTTPClient keep one until shortly before its end, or for a minute where that is not told. A token
// that the provider refuses all the same is reported, by HTTPClient and Transport on their own and else with
// ReportInvalid.
//
// # Errors
//
// Every failure is a *ConsentRequiredError, an *Error, or wraps the end of the context. Branch with
// errors.Is(err, tabard.ErrDenied) and its siblings; Error has the service's sentence and the request id.
package tabard
