package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	answerWithin = time.Minute // Tabard may have to ask a provider first
	maxAnswer    = 1 << 20     // bytes; the largest modelled answer is a quarter of it
	maxMessage   = 2 << 10     // bytes of an error's sentence
)

// upstream is Tabard.
type upstream struct {
	endpoint    string
	credentials Credentials
	transport   *http.Transport
}

func newUpstream(c Config) *upstream {
	// No proxy, and no redirect, which a transport does not follow: what goes here goes to Tabard and nobody else.
	var dialer net.Dialer
	if strings.HasPrefix(strings.ToLower(c.Endpoint), "http:") && !c.AllowClearText {
		dialer.Control = onLoopback
	}
	return &upstream{endpoint: c.Endpoint, credentials: c.Credentials, transport: &http.Transport{DialContext: dialer.DialContext,
		ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxHeaders, TLSHandshakeTimeout: headersWithin, ResponseHeaderTimeout: answerWithin, MaxIdleConnsPerHost: 32, IdleConnTimeout: idleFor,
	}}
}

// answer is what Tabard answered.
type answer struct {
	status int
	header http.Header
	body   secret.Text // of a success it has a token, as a rule
}

// exception is the name of the error, "" for a success. AWS's names have a tail after a colon at times.
func (a *answer) exception() string {
	if a.status/100 == 2 {
		return ""
	}
	name, _, _ := strings.Cut(a.header.Get("X-Amzn-Errortype"), ":")
	return name
}

// message is the error's sentence, or the status.
func (a *answer) message() string {
	var doc struct {
		Message string `json:"message"`
	}
	if json.Unmarshal([]byte(a.body.Expose()), &doc) != nil || doc.Message == "" {
		return fmt.Sprintf("Tabard answered %d", a.status)
	}
	return doc.Message[:min(len(doc.Message), maxMessage)]
}

// refusesUs reports whether Tabard refused the sidecar itself, and not what was asked for: AWS has one exception for
// both.
func (a *answer) refusesUs() bool {
	return a.exception() != "" && a.header.Get(api.HeaderRefused) == api.RefusedCaller
}

// foreign reports whether something other than Tabard answered: a proxy, as a rule, whose page may show what it was
// sent.
func (a *answer) foreign() bool {
	if a.status/100 != 2 {
		return a.exception() == ""
	}
	return !a.body.IsZero() && !json.Valid([]byte(a.body.Expose()))
}

// ownRefused is what those read whom the sidecar serves: that it is not their credentials which are wrong.
func (a *answer) ownRefused() string {
	return "Tabard refuses the sidecar's own credentials, not yours: " + a.message()
}

// call sends body to an operation, as the sidecar. trace are headers to send along.
func (u *upstream) call(ctx context.Context, op api.Operation, body secret.Text, trace http.Header) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, op.Method, u.endpoint+op.Path, strings.NewReader(body.Expose()))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"X-Amzn-Trace-Id", "Traceparent"} {
		if v := trace.Values(name); len(v) == 1 && len(v[0]) <= 512 {
			r.Header.Set(name, v[0])
		}
	}
	r.Header.Set("Content-Type", "application/json")
	return u.send(r, body)
}

func (u *upstream) send(r *http.Request, body secret.Text) (*answer, error) {
	r.Header.Set("User-Agent", "tabard-sidecar")
	if err := u.credentials.Sign(r.Context(), r, body); err != nil {
		return nil, fmt.Errorf("the sidecar's own credentials: %w", err)
	}
	resp, err := u.transport.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("no answer from %s: %w", u.endpoint, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("half an answer from %s: %w", u.endpoint, err)
	}
	if len(got) > maxAnswer {
		return nil, fmt.Errorf("the answer from %s has more than %d bytes", u.endpoint, maxAnswer)
	}
	a := &answer{resp.StatusCode, resp.Header, secret.New(string(got))}
	if resp.StatusCode/100 != 2 { // the sentence is for others to read, and for the log
		_, own, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		a.body = secret.New(mask(string(got), secret.New(own), secret.New(r.Header.Get("X-Amz-Security-Token"))))
	}
	return a, nil
}

// ready asks whether Tabard answers, and whether there are credentials to call it with.
func (u *upstream) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.endpoint+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	a, err := u.send(r, secret.Text{})
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("%s answers %d", u.endpoint, a.status)
	}
	return err
}
