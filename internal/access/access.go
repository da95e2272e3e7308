// Package access decides who may do what and records each decision.
//
// Security argument: the decision and its audit record are one call, made by the core method that touches the secret,
// with the caller as an argument. A method cannot decide without recording, and a plaintext leaves only with the
// Receipt of its record, so no release goes unaudited. Everything that no rule allows is denied.
package access

import (
	"context"
	"strings"
)

// Account is a 12-digit account number. Two accounts share nothing.
type Account string

// Valid reports whether a has the form of an account's number: 12 digits.
func (a Account) Valid() bool {
	return len(a) == 12 && strings.Trim(string(a), "0123456789") == ""
}

// PrincipalID is the immutable id of a principal.
type PrincipalID string

// Role is a set of rights. The rule table in roles.go says which.
type Role string

// The roles. docs/policy.md says what each may do.
const (
	Root       Role = "root"        // everything in its account, which the audit flags
	Admin      Role = "admin"       // administers, releases nothing
	Agent      Role = "agent"       // acts for the workload identities it is paired with
	ConsentApp Role = "consent-app" // completes consent for the workload identities it is paired with
	Auditor    Role = "auditor"     // reads the trail and what exists
)

// Caller is the authenticated principal behind a request. The zero Caller may do nothing.
type Caller struct {
	Account   Account
	Principal PrincipalID
	Name      string
	AccessKey string   // id of the access key that signed, never its secret
	Roles     []Role   // what it may do
	Workloads []string // the workload identities it is paired with: names, or patterns with *
}

// String names the caller for a sentence.
func (c Caller) String() string {
	if c.Name == "" {
		return "the caller"
	}
	return "principal " + c.Name
}

// Has reports whether the caller holds r.
func (c Caller) Has(r Role) bool {
	for _, have := range c.Roles {
		if have == r {
			return true
		}
	}
	return false
}

// PairedWith reports whether one of the caller's patterns matches the workload's name.
func (c Caller) PairedWith(workload string) bool {
	for _, p := range c.Workloads {
		if MatchName(p, workload) {
			return true
		}
	}
	return false
}

// MatchName reports whether name matches pattern, in which each * stands for any run of characters. It takes time
// linear in name for each star.
func MatchName(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		// The leftmost place is as good as any: it leaves the most for what follows.
		if _, name, ok = strings.Cut(name, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(name, parts[last])
}

// Action is the name of an operation, as on the wire.
type Action string

// Facts are what a decision is made on and what its record says. They never hold a secret.
type Facts struct {
	Resource    string   // ARN or name of what is acted on, where no field below names it
	Workload    string   // name of the workload identity
	WorkloadUID string   // its immutable uid
	UserRef     string   // HMAC of the user, never the user
	Asserted    bool     // the user was asserted by the caller, not proven by a token
	Assertable  bool     // the workload identity accepts asserted users (tag tabard:assurance=asserted)
	Provider    string   // name of the credential provider
	Flow        string   // OAuth2 flow
	Scopes      []string // scopes of the token that would be released, or asked for
	Connection  string   // id of the connection
	Generation  int64    // generation of the connection's tokens
	Outcome     string   // what came of it, for records of events: "released", "refreshed", "consent_required", ...
	Detail      string   // a cleaned reason, e.g. a provider's error code

	Unrecorded
}

// Unrecorded are the facts that decisions are made on and that no record has.
type Unrecorded struct {
	ScopesUnknown bool      // nobody knows which scopes the token has or would have; Scopes is empty then
	Released      bool      // if this is allowed, a token or key leaves, or is asked of its provider: ceilings count it
	Vault         string    // name of the token vault; "" is "default"
	User          UserFacts // who the user is, as far as a token proved it; records have UserRef
	Audience      string    // of a token for somebody else (RFC 8693 §2.1); records have it as Resource
	Through       []string  // names of the workload identities that the token came through, the latest first; records have them in Detail
	Parameters    []string  // names of the custom parameters of a request for a token, in the one spelling of policies
	From          string    // name of the one that hands its token on, where it is exchanged for one of Workload; else ""
}

// IsWorkloadAudience reports whether an audience is a workload identity, by its ARN: an exchange for it hands a token
// on. No other audience has such a name.
func IsWorkloadAudience(audience string) bool {
	return strings.Contains(audience, ":workload-identity-directory/")
}

// Spelled is the one spelling of the name of a custom parameter, which policies read. PHP reads a dot in a name as an
// underscore.
func Spelled(parameter string) string {
	return strings.ReplaceAll(strings.ToLower(parameter), ".", "_")
}

// UserFacts say who a user is. They are personal data: they are never recorded or logged, records have UserRef.
type UserFacts struct {
	Issuer  string // "" for a user who was asserted by the caller
	Subject string
	Claims  string // a JSON object of the claims that the issuer's setting keeps for policies, "" for none
}

type requestIDKey struct{}

// WithRequestID returns a context that carries the request's correlation id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the correlation id of the request, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
