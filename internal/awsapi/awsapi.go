// Package awsapi speaks the wire protocol: restJson1 operations, each signed with SigV4, in the shapes of package api.
//
// Security argument: one function, route, does for every operation what must never be forgotten: it verifies the
// signature over exactly the bytes that it reads of a bounded body, before or after as the signature allows, decodes
// them strictly and holds them against the model's constraints, before a core method sees a caller. The core decides
// and audits; this package only translates, and turns sensitive members into secret.Text at once.
package awsapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"reflect"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/accounts"
	"github.com/tabard-id/tabard/internal/audit"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/ceiling"
	"github.com/tabard-id/tabard/internal/exchange"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/policy"
	"github.com/tabard-id/tabard/internal/revocation"
	"github.com/tabard-id/tabard/internal/secret"
)

// Config is what the operations need.
type Config struct {
	Identity   *identity.Service
	Federation *federation.Service
	Exchange   *exchange.Service
	Accounts   *accounts.Service
	Admission  *Admission // nil for one of its own
	Broker     *broker.Broker
	Policies   *policy.Service
	Revocation *revocation.Service
	Ceilings   *ceiling.Service
	Guard      *access.Guard
	Audit      access.Reader
	Trail      *audit.Service
	Region     string
	Now        func() time.Time
	Log        *slog.Logger
	Observe    func(route string, status int, took time.Duration) // for metrics; may be nil
}

type server struct {
	Config
	verifier  *Verifier
	admission *Admission
	mux       *http.ServeMux
}

// New returns the handler of every operation. It answers what it does not know with UnknownOperationException.
func New(c Config) http.Handler {
	s := &server{Config: c, mux: http.NewServeMux()}
	s.verifier = NewVerifier(VerifierConfig{Region: c.Region, Now: c.Now, Find: c.Identity.Credential, Session: s.Federation.Credential})
	if s.admission = c.Admission; s.admission == nil {
		s.admission = NewAdmission(c.Accounts, c.Now)
	}
	s.accountRoutes()
	s.workloadRoutes()
	s.providerRoutes()
	s.providerTestRoutes()
	s.vendorRoutes()
	s.tokenRoutes()
	s.issuerRoutes()
	s.loginRoutes()
	s.principalRoutes()
	s.auditRoutes()
	s.apiKeyRoutes()
	s.tokenVaultRoutes()
	s.tagRoutes()
	s.absentRoutes()
	s.restoreRoutes()
	s.stsRoute()
	s.federationRoutes()
	s.containerRoutes()
	s.userRoutes()
	s.connectionRoutes()
	s.standingRoutes()
	s.ceilingRoutes()
	s.delegationRoutes()
	s.revocationRoutes()
	s.keyRotationRoutes()
	s.cedarRoutes()
	s.mux.HandleFunc("/", s.unknown)
	return s.mux
}

// unknown answers what no route matches. The log has no path of it: what clients get wrong may be anything.
func (s *server) unknown(w http.ResponseWriter, r *http.Request) {
	start, op := s.Now(), api.Operation{Path: "unknown"}
	writeUnknownOperation(w, r)
	if s.Observe != nil {
		s.Observe(op.Path, http.StatusNotFound, s.Now().Sub(start))
	}
	s.log(r, op, access.Caller{}, nil, http.StatusNotFound, start, fault.New(fault.NotFound, "there is no such operation"))
}

// validated is an input that knows its constraints.
type validated[Q any] interface {
	*Q
	Validate() []api.FieldError
}

// route registers one operation of the models.
func route[Q any, P validated[Q], A any](s *server, name string, do func(ctx context.Context, caller access.Caller, q *Q) (*A, error)) {
	op, ok := api.Find(name)
	if !ok {
		panic("awsapi: no operation " + name)
	}
	dec, bindings, members := newDecoder[Q](), bindingsOf(reflect.TypeFor[Q]()), membersOf(reflect.TypeFor[Q]())
	s.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		start := s.Now()
		var caller access.Caller
		var subject []any
		answer, err := func() (*A, error) {
			var body []byte
			var err error
			if err = tooLong(w, r, maxBody); err != nil {
				return nil, err
			}
			caller, body, err = s.enter(w, r, s.verifier, func() ([]byte, error) { return readBody(w, r, maxBody) })
			if err != nil {
				return nil, err
			}
			q, err := dec.decode(body)
			if err != nil {
				return nil, err
			}
			if err := bind(r, bindings, reflect.ValueOf(q).Elem()); err != nil {
				return nil, err
			}
			if err := misplaced(members, reflect.ValueOf(q).Elem(), ""); err != nil {
				return nil, err
			}
			if bad := P(q).Validate(); len(bad) > 0 {
				return nil, breaksConstraints(bad)
			}
			subject = subjectOf(q) // not before: a token in the wrong member is no name, and the log must not have it
			return do(r.Context(), caller, q)
		}()
		status := op.Status
		if err == nil {
			err = writeAnswer(w, r, status, answer)
		}
		if err != nil {
			status = writeError(w, r, err)
		}
		if s.Observe != nil {
			s.Observe(op.Path, status, s.Now().Sub(start))
		}
		s.log(r, op, caller, subject, status, start, err)
	})
}

// writeAnswer writes a success. Answers may hold secrets, so nothing may keep them.
func writeAnswer(w http.ResponseWriter, r *http.Request, status int, answer any) error {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Amzn-Requestid", access.RequestID(r.Context()))
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return nil
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the answer cannot be encoded")
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client went away: nothing left to tell it
	return nil
}

// log writes the one line of a request. It names nothing of the body but the workload identity and the provider.
func (s *server) log(r *http.Request, op api.Operation, caller access.Caller, subject []any, status int, start time.Time, err error) {
	if !s.Log.Enabled(r.Context(), slog.LevelInfo) {
		return
	}
	attrs := make([]any, 0, 24)
	attrs = append(attrs, "method", clip(r.Method), "route", op.Path, "status", status, "code", string(fault.CodeOf(err)),
		"latency_ms", float64(s.Now().Sub(start).Microseconds())/1000, "principal", caller.Name, "access_key", caller.AccessKey,
		"request_id", access.RequestID(r.Context()), "remote", r.RemoteAddr)
	if id := traceID(r.Header); id != "" {
		attrs = append(attrs, "trace_id", id)
	}
	attrs = append(attrs, subject...)
	if err != nil {
		attrs = append(attrs, "error", err.Error())
	}
	s.Log.InfoContext(r.Context(), "request", attrs...)
}

// subjectOf names what a request is about, for the log.
func subjectOf(q any) []any {
	switch q := q.(type) {
	case *api.GetResourceApiKeyRequest:
		return []any{"provider", q.ResourceCredentialProviderName}
	case *api.GetResourceOauth2TokenRequest:
		return []any{"provider", q.ResourceCredentialProviderName}
	case *api.GetWorkloadAccessTokenRequest:
		return []any{"workload", q.WorkloadName}
	case *api.GetWorkloadAccessTokenForJWTRequest:
		return []any{"workload", q.WorkloadName}
	case *api.GetWorkloadAccessTokenForUserIdRequest:
		return []any{"workload", q.WorkloadName}
	}
	return nil
}

// hide turns a sensitive member into what the core takes.
func hide(s api.Sensitive) secret.Text { return secret.New(string(s)) }

// show turns a secret into the one answer field that may carry it.
func show(t secret.Text) api.Sensitive { return api.Sensitive(t.Expose()) }
