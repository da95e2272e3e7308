package sidecar

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/secret"
)

const maxRequest = 512 << 10 // bytes, as Tabard's own bound

// served lists what an agent asks for. Whether it gets that is Tabard's to say; nothing that administers is here.
func served() []string {
	return []string{
		api.OpGetWorkloadAccessToken, api.OpGetWorkloadAccessTokenForJWT, api.OpGetWorkloadAccessTokenForUserId, api.OpGetWorkloadAccessTokenForDelegation,
		api.OpGetResourceOauth2Token, api.OpGetResourceApiKey, api.OpGetResourcePaymentToken, api.OpCompleteResourceTokenAuth,
		api.OpDescribeUser, api.OpGetUserInfo, api.OpReportTokenInvalid,
	}
}

// behind stands between the agent and Tabard.
type behind struct {
	upstream *upstream
	minter   *minter
	log      *slog.Logger
	now      func() time.Time
}

// wrongCall is a call that is not passed on.
type wrongCall struct {
	status    int
	exception string
	message   string
	err       error // for the log
}

func (e *wrongCall) Error() string {
	if e.err != nil {
		return e.message + ": " + e.err.Error()
	}
	return e.message
}

func (e *wrongCall) Unwrap() error { return e.err }

func (b *behind) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start, id, route, status := b.now(), newID(), "other", 0
	got, err := func() (*answer, error) {
		if err := local(r); err != nil {
			return nil, err
		}
		if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			route = r.URL.Path
			return b.health(r)
		}
		op, ok := find(r)
		if !ok {
			return nil, &wrongCall{status: http.StatusNotFound, exception: api.ExceptionUnknownOperation,
				message: "this address of tabard sidecar serves what agents ask for; what administers is asked of Tabard itself"}
		}
		route = op.Path
		return b.pass(w, r, op)
	}()
	if err != nil {
		status = writeWrong(w, id, err)
	} else {
		status = got.status
		err = write(w, id, got)
	}
	logLine(b.log, r, "identity", route, status, b.now().Sub(start), id, err)
}

// local refuses what a page in a browser of this machine could send: a browser says what it is for, and a name that was
// made to mean this machine (DNS rebinding) is in Host.
func local(r *http.Request) error {
	switch {
	case fromBrowser(r):
		return &wrongCall{status: http.StatusForbidden, exception: api.ExceptionAccessDenied, message: "tabard sidecar serves no browsers"}
	case !namesLoopback(r):
		return &wrongCall{status: http.StatusForbidden, exception: api.ExceptionAccessDenied, message: "tabard sidecar is asked as 127.0.0.1, ::1 or localhost, and under no other name"}
	}
	return nil
}

func find(r *http.Request) (api.Operation, bool) {
	for _, name := range served() {
		if op, ok := api.Find(name); ok && op.Path == r.URL.Path && op.Method == r.Method {
			return op, true
		}
	}
	return api.Operation{}, false
}

// pass asks Tabard what the agent asks, as the sidecar. The caller's signature is not looked at: it is of whatever AWS
// key the agent has, and goes nowhere.
func (b *behind) pass(w http.ResponseWriter, r *http.Request, op api.Operation) (*answer, error) {
	read, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &wrongCall{status: http.StatusRequestEntityTooLarge, exception: api.ExceptionRequestEntityTooLarge, message: fmt.Sprintf("the request body has more than %d bytes", maxRequest)}
	}
	if err != nil {
		return nil, &wrongCall{status: http.StatusBadRequest, exception: api.ExceptionValidation, message: "the request body could not be read", err: err}
	}
	body := secret.New(string(read))
	clear(read)
	got, err := b.upstream.call(r.Context(), op, b.minter.renew(r.Context(), body), r.Header)
	if err != nil {
		return nil, &wrongCall{status: http.StatusServiceUnavailable, exception: api.ExceptionServiceUnavailable, message: "tabard sidecar cannot ask Tabard now", err: err}
	}
	switch {
	case got.foreign():
		return nil, foreignAnswer(got.status)
	case got.refusesUs():
		return nil, &wrongCall{status: got.status, exception: got.exception(), message: got.ownRefused()}
	case got.exception() == api.ExceptionUnauthorized:
		b.minter.cache.forget()
	}
	return got, nil
}

// foreignAnswer says what it means that something before Tabard answered with this status. SDKs try the first two
// again.
func foreignAnswer(status int) *wrongCall {
	err := fmt.Errorf("what answers at Tabard's address is not Tabard: %d", status)
	switch status {
	case http.StatusTooManyRequests:
		return &wrongCall{status: status, exception: api.ExceptionThrottling, message: "too many requests: try again later", err: err}
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &wrongCall{status: http.StatusServiceUnavailable, exception: api.ExceptionServiceUnavailable, message: "tabard sidecar cannot ask Tabard now", err: err}
	}
	return &wrongCall{status: http.StatusBadGateway, exception: api.ExceptionInternalServer, message: "what answers tabard sidecar is not Tabard", err: err}
}

// health answers a probe: /healthz says that the sidecar lives, /readyz that it has credentials and Tabard answers.
func (b *behind) health(r *http.Request) (*answer, error) {
	if r.Method != http.MethodGet {
		return nil, &wrongCall{status: http.StatusMethodNotAllowed, exception: api.ExceptionUnknownOperation, message: "a probe is a GET"}
	}
	if r.URL.Path == "/readyz" {
		if err := b.upstream.ready(r.Context()); err != nil {
			return nil, &wrongCall{status: http.StatusServiceUnavailable, exception: api.ExceptionServiceUnavailable, message: "not ready: the log of tabard sidecar says why", err: err}
		}
	}
	return &answer{http.StatusOK, http.Header{"Content-Type": {"application/json"}}, secret.New(`{"status":"ok"}`)}, nil
}

// write passes an answer on: its body, and of its headers those that SDKs read.
func write(w http.ResponseWriter, id string, a *answer) error {
	h := w.Header()
	for _, name := range []string{"Content-Type", "X-Amzn-Errortype", "X-Amzn-Requestid", "Retry-After"} {
		if v := a.header.Get(name); v != "" {
			h.Set(name, v)
		}
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Tabard-Sidecar-Request-Id", id)
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.body.Expose()) // the agent may have gone
	if a.exception() != "" {
		return fmt.Errorf("%s: %s", a.exception(), a.message())
	}
	return nil
}

// writeWrong answers in the form of restJson1, which the agent's SDK reads.
func writeWrong(w http.ResponseWriter, id string, err error) int {
	e, ok := errors.AsType[*wrongCall](err)
	if !ok {
		e = &wrongCall{status: http.StatusInternalServerError, exception: api.ExceptionInternalServer, message: "internal error"}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Amzn-Errortype", e.exception)
	h.Set("X-Amzn-Requestid", id)
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": e.message}) // the agent may have gone
	return e.status
}
