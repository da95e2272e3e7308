package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

// Inspector reads what a provider publishes about itself.
type Inspector interface {
	// Inspect fetches the document at p.DiscoveryURL now. It checks nothing of it but its form. Unavailable means that
	// there was no answer, Invalid that it is no metadata; the causes may name addresses.
	Inspect(ctx context.Context, p Provider) (Metadata, error)
}

// Metadata is what a metadata document says (RFC 8414 §2).
type Metadata struct {
	Issuer        string
	Expected      []string // issuers whose discovery URL it is
	PKCE          []string // nil where it does not say
	AuthMethods   []string // of the token endpoint; nil where it does not say
	IssInResponse bool     // RFC 9207 §3
}

// CheckStatus is what a check came to.
type CheckStatus string

// Values of CheckStatus.
const (
	CheckPass    CheckStatus = "pass"
	CheckFail    CheckStatus = "fail"
	CheckSkipped CheckStatus = "skipped" // it could not be made, or only the provider's own settings can tell
)

// Check is one finding about a provider.
type Check struct {
	Name   string
	Status CheckStatus
	Detail string // names addresses of the installation to its operator only (threat E13)
	Hidden error  // what the detail leaves out: for the log. nil where that is nothing
}

// The checks, in the order in which they are told.
const (
	checkMetadata = "metadata"
	checkIssuer   = "issuer"
	checkPKCE     = "pkce"
	checkClient   = "client-authentication"
	checkCallback = "callback-url"
	checkKeys     = "client-keys"
	checkTrust    = "issuer-trust"
	checkIss      = "issuer-in-response"
	checkUser     = "user-token"
)

const maxDetail = 1000 // bytes of a check's detail

// TestProvider looks at a provider as an administrator would: is its metadata reachable and its own, does it know
// PKCE, does it accept the client. It sends the client secret (or an assertion) with a code that cannot be one, so
// that nothing is granted; what the provider says to that tells whether it knows the client (RFC 6749 §5.2). With a
// user's token it also tells whether that names a user here, and if not why; the token goes nowhere and is not kept.
// What is found wrong is an answer and no error. Why a host was not reached is told to the operator, who is root of
// the installation's own account: what a name resolves to, and what listens there, is the installation's to know. The
// errors are Denied, NotFound, and those of the store and the key service.
func (b *Broker) TestProvider(ctx context.Context, caller access.Caller, name string, userToken secret.Text) ([]Check, error) {
	if err := b.guard.Permit(ctx, caller, access.TestProvider, access.Facts{Provider: name}); err != nil {
		return nil, err
	}
	p, err := b.store.Provider(ctx, caller.Account, name)
	if err != nil {
		return nil, err
	}
	if err := b.slowTest(ctx, caller, p); err != nil {
		return nil, err
	}
	v, ok := b.catalogue.Vendor(p.Vendor)
	if !ok {
		return nil, fault.New(fault.Unavailable, "vendor %s of provider %s is not in this server's catalogue", p.Vendor, name)
	}
	say := b.telling(caller, p)
	m, checks, reached := b.inspect(ctx, p, v, say)
	client := Check{Name: checkClient, Status: CheckSkipped, Detail: "the metadata cannot be used"}
	mismatch := false
	if reached {
		client, mismatch = b.probeClient(ctx, p, v, m, say)
	}
	checks = append(checks, client, b.callbackCheck(p, mismatch))
	if p.AuthMethod == AuthPrivateKeyJWT {
		checks = append(checks, Check{Name: checkKeys, Status: CheckSkipped, Detail: "only the provider can tell: register the key set " + b.ClientKeysURL(p) + " with the client"})
	}
	if r, ok := b.Registration(p); ok {
		checks = append(checks, Check{Name: checkTrust, Status: CheckSkipped, Detail: r.advice(m.Issuer)})
	}
	checks = append(checks, issCheck(p, m, reached))
	if !userToken.IsZero() {
		user, err := b.userCheck(ctx, caller.Account, userToken, say)
		if err != nil {
			return nil, err
		}
		checks = append(checks, user)
	}
	for i := range checks { // metadata, certificates and tokens are foreign text
		checks[i].Detail = clean(checks[i].Detail, maxDetail)
	}
	return checks, nil
}

// userCheck says whom the token names, or what keeps it from that.
func (b *Broker) userCheck(ctx context.Context, account access.Account, token secret.Text, say telling) (Check, error) {
	u, issuer, err := b.identity.ExamineUser(ctx, account, token)
	switch fault.CodeOf(err) {
	case "":
	case fault.Invalid, fault.Unauthenticated, fault.Unavailable:
		return say(checkUser, "", err), nil
	default:
		return Check{}, err
	}
	detail := fmt.Sprintf("the token names the user %+q of the issuer %s until %s", u.Subject, u.Issuer, u.Expires.UTC().Format(time.RFC3339))
	if len(issuer.Workloads) > 0 {
		detail += ", for the workload identities " + strings.Join(issuer.Workloads, ", ") + " only"
	}
	return Check{Name: checkUser, Status: CheckPass, Detail: detail}, nil
}

func issCheck(p Provider, m Metadata, reached bool) Check {
	switch {
	case p.DiscoveryURL == "" || !reached:
		return Check{Name: checkIss, Status: CheckSkipped, Detail: "there is no metadata to say whether answers name the issuer (RFC 9207)"}
	case m.IssInResponse:
		return Check{Name: checkIss, Status: CheckPass, Detail: "answers name the issuer, and one that does not is refused (RFC 9207)"}
	}
	return Check{Name: checkIss, Status: CheckSkipped, Detail: "the provider does not promise to name the issuer in its answers (RFC 9207); the callback URL, which no other provider has, tells them apart"}
}

// inspect makes the checks of the metadata, and reports whether there is anything to go on with.
func (b *Broker) inspect(ctx context.Context, p Provider, v Vendor, say telling) (Metadata, []Check, bool) {
	if p.DiscoveryURL == "" {
		const none = "the endpoints were given, and no metadata is asked for"
		return Metadata{}, []Check{{Name: checkMetadata, Status: CheckSkipped, Detail: none}, {Name: checkIssuer, Status: CheckSkipped, Detail: none}, pkceCheck(v, nil)}, true
	}
	m, err := b.upstream.Inspect(ctx, p)
	if err != nil {
		const none = "there is no metadata"
		return m, []Check{say(checkMetadata, p.DiscoveryURL+": ", err), {Name: checkIssuer, Status: CheckSkipped, Detail: none}, {Name: checkPKCE, Status: CheckSkipped, Detail: none}}, false
	}
	issuer := Check{Name: checkIssuer, Status: CheckPass, Detail: m.Issuer}
	if !slices.Contains(m.Expected, m.Issuer) {
		issuer = Check{Name: checkIssuer, Status: CheckFail, Detail: fmt.Sprintf("the metadata says %q, and at this address it must be %s (RFC 8414 §3.3)", m.Issuer, strings.Join(m.Expected, " or "))}
	}
	return m, []Check{{Name: checkMetadata, Status: CheckPass, Detail: p.DiscoveryURL}, issuer, pkceCheck(v, m.PKCE)}, true
}

func pkceCheck(v Vendor, methods []string) Check {
	switch {
	case v.NoPKCE:
		return Check{Name: checkPKCE, Status: CheckSkipped, Detail: "this vendor refuses PKCE"}
	case slices.Contains(methods, "S256"):
		return Check{Name: checkPKCE, Status: CheckPass, Detail: "S256"}
	case len(methods) > 0:
		return Check{Name: checkPKCE, Status: CheckFail, Detail: "the metadata lists " + strings.Join(methods, ", ") + " and not S256, which is needed"}
	}
	return Check{Name: checkPKCE, Status: CheckSkipped, Detail: "nothing says whether the provider knows PKCE; it is sent, and a provider that does not know it ignores it"}
}

func (b *Broker) callbackCheck(p Provider, mismatch bool) Check {
	if mismatch {
		return Check{Name: checkCallback, Status: CheckFail, Detail: "the provider does not know the redirect URI: register " + b.CallbackURL(p)}
	}
	return Check{Name: checkCallback, Status: CheckSkipped, Detail: "only the provider can tell: register the redirect URI " + b.CallbackURL(p)}
}

// probeClient redeems a code that does not exist. The second result says that the provider named the redirect URI as
// what is wrong.
func (b *Broker) probeClient(ctx context.Context, p Provider, v Vendor, m Metadata, say telling) (Check, bool) {
	endpoints, credential, err := b.client(ctx, p)
	if err != nil {
		return say(checkClient, "", err), false
	}
	_, err = b.upstream.Redeem(ctx, endpoints, p, v, credential, CodeGrant{
		Code: secret.New("tabard-provider-test-" + random(12)), Verifier: secret.New(random(32)), RedirectURI: b.CallbackURL(p),
	})
	check := Check{Name: checkClient}
	up, ok := errors.AsType[*UpstreamError](err)
	switch {
	case err == nil:
		check.Status, check.Detail = CheckFail, "the provider granted a token for a code that it never issued"
	case !ok:
		check = say(checkClient, "", err)
	case up.Kind != Rejected:
		check = say(checkClient, endpoints.Token+": ", err)
	default:
		check.Status, check.Detail = verdict(p, up, m)
	}
	return check, ok && up.Code == "redirect_uri_mismatch"
}

// verdict reads what the refusal says of the client (RFC 6749 §5.2).
func verdict(p Provider, up *UpstreamError, m Metadata) (CheckStatus, string) {
	answer := fmt.Sprintf("status %d%s", up.Status, up.said())
	switch up.Code {
	case "invalid_grant", "bad_verification_code", "invalid_code", "redirect_uri_mismatch": // the others are GitHub's and Slack's
		return CheckPass, fmt.Sprintf("%s: the provider accepts the client", p.AuthMethod)
	case "unauthorized_client":
		return CheckPass, fmt.Sprintf("%s: the provider knows the client, and does not allow it USER_FEDERATION (%s)", p.AuthMethod, answer)
	case "unsupported_grant_type":
		return CheckSkipped, fmt.Sprintf("the provider has no authorization code grant, so this cannot tell (%s)", answer)
	case "invalid_client", "incorrect_client_credentials", "invalid_client_id", "bad_client_secret":
		return CheckFail, fmt.Sprintf("the provider does not accept the client by %s: %s%s", p.AuthMethod, answer, offered(p, m))
	}
	if up.Status == 401 {
		return CheckFail, fmt.Sprintf("the provider does not accept the client by %s: %s%s", p.AuthMethod, answer, offered(p, m))
	}
	return CheckSkipped, fmt.Sprintf("the answer says nothing of the client: %s", answer)
}

// offered adds what the metadata says against our way of authentication. There is no registered name for an assertion
// of another issuer: private_key_jwt is the nearest.
func offered(p Provider, m Metadata) string {
	if p.AuthMethod == AuthIDTokenJWT {
		p.AuthMethod = AuthPrivateKeyJWT
	}
	if len(m.AuthMethods) == 0 || slices.Contains(m.AuthMethods, string(p.AuthMethod)) {
		return ""
	}
	return "; its metadata offers " + strings.Join(m.AuthMethods, ", ")
}

// telling makes the failed check of an error, as its reader may see it.
type telling func(name, at string, err error) Check

// telling returns how the caller is told of errors. To others than the operator, a host that is closed, one that is
// silent and one that the account may not reach are one and the same.
func (b *Broker) telling(caller access.Caller, p Provider) telling {
	operator := b.home != "" && caller.Account == b.home && caller.Has(access.Root)
	return func(name, at string, err error) Check {
		c := Check{Name: name, Status: CheckFail, Detail: at + plainly(err)}
		switch fault.CodeOf(providerFault(p, "the test of the client", err)) {
		case fault.Invalid, fault.Unauthenticated, fault.Denied: // what was found there, and no reason for finding nothing
			return c
		}
		if operator {
			return c
		}
		c.Detail = at + fault.Public(providerFault(p, "the test of the client", err)).Msg + "; the operator finds the reason in the server's log"
		c.Hidden = err
		return c
	}
}

// plainly is an error with its cause, in one line: what the operator reads in the log.
func plainly(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		if f.Err == nil {
			return f.Msg
		}
		return f.Msg + ": " + f.Err.Error()
	}
	return err.Error()
}
