package awsapi

import (
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/secret"
)

// Codes of sts:AssumeRoleWithWebIdentity. SDKs ask again on InvalidIdentityToken, so that is never answered (threat
// J08); they ask again on IDPCommunicationError too, which is meant.
const (
	tokenExpired = "ExpiredTokenException"
	idpFailed    = "IDPCommunicationError"
)

const assumeAction = string(access.AssumeRole)

// maxWebIdentityToken is AWS's bound, in characters.
const maxWebIdentityToken = 20000

// assumedRole is the answer of AssumeRoleWithWebIdentity.
type assumedRole struct {
	XMLName  xml.Name      `xml:"AssumeRoleWithWebIdentityResponse"`
	Space    string        `xml:"xmlns,attr"`
	Key      string        `xml:"AssumeRoleWithWebIdentityResult>Credentials>AccessKeyId"`
	Secret   api.Sensitive `xml:"AssumeRoleWithWebIdentityResult>Credentials>SecretAccessKey"`
	Token    api.Sensitive `xml:"AssumeRoleWithWebIdentityResult>Credentials>SessionToken"`
	Expires  string        `xml:"AssumeRoleWithWebIdentityResult>Credentials>Expiration"`
	Subject  string        `xml:"AssumeRoleWithWebIdentityResult>SubjectFromWebIdentityToken"`
	RoleID   string        `xml:"AssumeRoleWithWebIdentityResult>AssumedRoleUser>AssumedRoleId"`
	RoleARN  string        `xml:"AssumeRoleWithWebIdentityResult>AssumedRoleUser>Arn"`
	Provider string        `xml:"AssumeRoleWithWebIdentityResult>Provider"`
	Audience string        `xml:"AssumeRoleWithWebIdentityResult>Audience"`
	Request  string        `xml:"ResponseMetadata>RequestId"`
}

// isAssume reports whether a form asks for AssumeRoleWithWebIdentity, the one action that needs no signature: the token
// in it is the proof.
func isAssume(body []byte) (url.Values, bool) {
	form, err := url.ParseQuery(string(body))
	return form, err == nil && len(form["Action"]) == 1 && form["Action"][0] == assumeAction
}

// serveAssume answers AssumeRoleWithWebIdentity.
func (s *server) serveAssume(w http.ResponseWriter, r *http.Request, form url.Values, start time.Time) {
	status, session := http.StatusOK, federation.Session{}
	q, err := assumeRequest(form)
	if err == nil {
		session, err = s.Federation.Assume(r.Context(), q)
		_, err = s.admission.Admit(w, r, access.Caller{Account: q.Role.Account}, err)
	}
	if err == nil {
		account := string(session.Role.Account)
		writeXML(w, r, status, &assumedRole{
			Space: stsSpace, Key: session.AccessKeyID, Secret: show(session.Secret), Token: show(session.Token),
			Expires: session.Expires.UTC().Format(time.RFC3339), Subject: session.Subject, RoleID: string(session.Principal) + ":" + session.Name,
			RoleARN:  "arn:aws:sts::" + account + ":assumed-role/" + session.Role.Principal + "/" + session.Name,
			Provider: session.Issuer, Audience: session.Audience, Request: access.RequestID(r.Context()),
		})
	} else {
		status = writeAssumeError(w, r, err)
	}
	s.finish(r, api.Operation{Name: assumeAction, Method: http.MethodPost, Path: "/"}, session, status, start, err)
}

// assumeRequest reads the form. A member that narrows the session and that we do not have (Policy, PolicyArns) is an
// error: ignoring it would give more than was asked for (threat J09).
func assumeRequest(form url.Values) (q federation.Request, err error) {
	for name, values := range form {
		switch {
		case len(values) != 1:
			return q, fault.Field(name, "%s is there %d times", clip(name), len(values))
		case name == "Policy" || strings.HasPrefix(name, "PolicyArns"):
			return q, fault.Field(name, "%s is not supported: a session has the rights of its principal", clip(name))
		case name == "ProviderId":
			return q, fault.Field(name, "ProviderId is not supported: it is for OAuth 2.0 access tokens, and here OpenID Connect tokens are accepted")
		}
		if name != "WebIdentityToken" && secret.IsCredential(values[0]) {
			return q, fault.Field(name, "%s holds a credential, where a name belongs", clip(name)) // threat M18
		}
		switch name {
		case "Action", "Version", "RoleArn", "RoleSessionName", "WebIdentityToken", "DurationSeconds":
		default:
			return q, fault.Field(name, "%s is not a member of this action", clip(name))
		}
	}
	if form.Get("Version") != stsVersion {
		return q, fault.Field("Version", "the version of this action is %s", stsVersion)
	}
	if q.Role, err = federation.ParseRole("RoleArn", form.Get("RoleArn")); err != nil {
		return q, err
	}
	q.Session, q.Token = form.Get("RoleSessionName"), secret.New(form.Get("WebIdentityToken"))
	if n := len(form.Get("WebIdentityToken")); n < 4 || n > maxWebIdentityToken {
		return q, fault.Field("WebIdentityToken", "the web identity token is 4 to %d characters long", maxWebIdentityToken)
	}
	if text, ok := form["DurationSeconds"]; ok {
		seconds, err := strconv.ParseInt(text[0], 10, 32)
		if err != nil || seconds <= 0 {
			return q, fault.Field("DurationSeconds", "DurationSeconds is a number of seconds")
		}
		q.Duration = time.Duration(seconds) * time.Second
	}
	return q, nil
}

// writeAssumeError answers with the codes that AWS has for this action.
func writeAssumeError(w http.ResponseWriter, r *http.Request, err error) int {
	public := fault.Public(err)
	code, status := stsCode(public.Code), http.StatusBadRequest
	switch {
	case public.Code == fault.CredentialsExpired:
		code = tokenExpired
	case public.Code == fault.Unauthenticated:
		code, status = "AccessDenied", http.StatusForbidden
	case public.Code == fault.Unavailable && errors.Is(err, federation.ErrIssuer):
		code = idpFailed
	case public.Code != fault.Invalid:
		_, status = exceptionOf(public.Code)
	}
	e := &stsError{Space: stsSpace, Type: "Sender", Code: code, Message: public.Msg, Request: access.RequestID(r.Context())}
	if status >= http.StatusInternalServerError {
		e.Type = "Receiver"
	}
	if public.Code == fault.Internal {
		e.Message = "internal error, request id " + e.Request
	}
	writeXML(w, r, status, e)
	return status
}
