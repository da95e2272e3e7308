package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	maxExpiry      = 10 * 365 * 24 * time.Hour // longer is a provider's way to say never
	maxDescription = 256                       // characters of an error_description that we keep
	maxErrorCode   = 64
	maxClaims      = 2048 // bytes of a claims challenge
	minRedacted    = 6    // shorter values are found in any sentence
)

// classify turns a token endpoint's answer into a grant or a *broker.UpstreamError:
//
//   - 5xx, 429, 408, 425: Busy, with the error code where the body has one.
//   - 4xx and 3xx: Rejected. Where the body is no RFC 6749 §5.2 error, Code is "": the provider said no, and not to
//     the grant, as with a wrong address or a firewall's page.
//   - 2xx with a member "error", or with the vendor's own sign of failure: Rejected (GitHub and Slack do that).
//   - 2xx with a token: the grant.
//   - All else: Unknown. The provider may have taken the grant.
func classify(a answer, v broker.Vendor, sent []secret.Text) (broker.Grant, error) {
	var members map[string]json.RawMessage
	err := a.err
	if err == nil {
		members, err = parseAnswer(a.body, v)
	}
	code, description, failed := parseError(members, v, sent)
	e := &broker.UpstreamError{Status: a.status, Code: code, Description: description, Err: err}
	e.Sub, e.Claims = errorCode(members, "suberror", sent), claims(members, sent)
	switch s := a.status; {
	case s >= 500 || s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s == http.StatusTooEarly:
		e.Kind = broker.Busy
	case s >= 300 && s < 400:
		e.Kind, e.Err = broker.Rejected, errors.New("the answer is a redirect, which is not followed")
	case s >= 400:
		e.Kind = broker.Rejected
	case s < 200 || err != nil:
		e.Kind = broker.Unknown
	case failed, notOK(members, v):
		e.Kind = broker.Rejected
	default:
		grant, err := parseGrant(members, v)
		if err == nil {
			return grant, nil
		}
		e.Kind, e.Err = broker.Unknown, err
	}
	return broker.Grant{}, e
}

// parseObject reads one JSON object with nothing after it. A name that occurs twice is refused, because two readers
// could understand two things; and so is text that is not UTF-8.
func parseObject(b []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("the answer is not UTF-8")
	}
	notObject := errors.New("the answer is not a JSON object") // encoding/json's own errors quote the text
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, notObject
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, notObject
		}
		if _, again := members[name]; again {
			return nil, errors.New("the answer names a member twice")
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return nil, notObject
		}
		members[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, notObject
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, notObject
	}
	return members, nil
}

// text returns a member that is a string; ok is false where it is of another type. A missing or null one is "".
func text(members map[string]json.RawMessage, name string) (s string, ok bool) {
	raw, present := members[name]
	if !present {
		return "", true
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// parseError reads RFC 6749 §5.2. failed is true where there is an error, even one we cannot read.
// A vendor that describes errors in a member of its own may do so without a code.
func parseError(members map[string]json.RawMessage, v broker.Vendor, sent []secret.Text) (code, description string, failed bool) {
	code, ok := text(members, "error")
	failed = !ok || code != ""
	code = errorCode(members, "error", sent)
	name := "error_description"
	if v.MessageName != "" {
		name = v.MessageName
	}
	if !failed && v.MessageName == "" {
		return "", "", false
	}
	description, _ = text(members, name)
	return code, clean(description, sent), failed
}

// errorCode returns a member that is an error code, "" for any other.
func errorCode(members map[string]json.RawMessage, name string, sent []secret.Text) string {
	code, _ := text(members, name)
	if len(code) > maxErrorCode || strings.ContainsFunc(code, notErrorChar) || code != redact(code, sent) {
		return ""
	}
	return code
}

// claims returns what the provider wants in the parameter claims of the next authorization request: a JSON object
// (OpenID Connect Core §5.5), as the member or in its text. It goes through a browser, so that one that is too long, or
// repeats what we sent in whatever spelling, is none.
func claims(members map[string]json.RawMessage, sent []secret.Text) secret.Text {
	doc := []byte(members["claims"])
	if s, ok := text(members, "claims"); ok {
		doc = []byte(s)
	}
	if len(doc) > maxClaims {
		return secret.Text{}
	}
	if _, err := parseObject(doc); err != nil {
		return secret.Text{}
	}
	var object map[string]any
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if d.Decode(&object) != nil || len(object) == 0 {
		return secret.Text{}
	}
	written, err := json.Marshal(object) // one spelling of each character
	if err != nil || len(written) > maxClaims || string(written) != redact(string(written), sent) {
		return secret.Text{}
	}
	return secret.New(string(written))
}

// notErrorChar: RFC 6749 appendix A.7, without the space, which no registered code has.
func notErrorChar(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }

// clean makes a provider's sentence fit to show: printable, short, without links (whose queries hold things) and
// without what we sent.
func clean(s string, sent []secret.Text) string {
	s = redact(s, sent)
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	words := strings.Fields(s)
	for i, w := range words {
		if strings.Contains(w, "://") {
			words[i] = "[link]"
		}
	}
	runes := []rune(strings.Join(words, " "))
	if len(runes) > maxDescription {
		runes = runes[:maxDescription]
	}
	return string(runes)
}

func redact(s string, sent []secret.Text) string {
	for _, t := range sent {
		if v := t.Expose(); len(v) >= minRedacted {
			s = strings.NewReplacer(v, "[secret]", url.QueryEscape(v), "[secret]", url.PathEscape(v), "[secret]").Replace(s)
		}
	}
	return s
}

// parseGrant reads RFC 6749 §5.1. What is wrong with the token itself is an error. What is wrong beside it is not: a
// provider that writes expires_in its own way has still used up the code.
func parseGrant(members map[string]json.RawMessage, v broker.Vendor) (broker.Grant, error) {
	object, nested, err := tokenObject(members, v)
	if err != nil {
		return broker.Grant{}, err
	}
	access, ok := text(object, "access_token")
	if !ok || access == "" || strings.ContainsFunc(access, notTokenChar) {
		return broker.Grant{}, errors.New("the answer has no usable access_token")
	}
	refresh, ok := text(object, "refresh_token")
	if !ok || strings.ContainsFunc(refresh, notTokenChar) {
		return broker.Grant{}, errors.New("the answer has no usable refresh_token")
	}
	// token_type is required, but some leave it out. We send no key that another type could be bound to, so its
	// absence can only mean Bearer. Any other value is refused (threat E16), but for a vendor's own names of Bearer.
	kind, ok := text(object, "token_type")
	if !ok || !bearer(kind, v) {
		return broker.Grant{}, errors.New("the answer's token_type is not Bearer")
	}
	granted := scopes(object["scope"], separator(v)+v.AnswerSeparator)
	if nested {
		granted = v.OfUser(granted)
	}
	id, _ := text(object, "id_token") // beside the token: what is wrong with it is judged by who needs it
	return broker.Grant{
		AccessToken:  secret.New(access),
		RefreshToken: secret.New(refresh),
		TokenType:    "Bearer",
		ExpiresIn:    expiry(object["expires_in"]),
		Scopes:       granted,
		Attributes:   attributes(members, v),
		IDToken:      secret.New(id),
	}, nil
}

// notTokenChar: RFC 6749 appendices A.12 and A.17, without the space, which cannot be in a bearer token (RFC 6750
// §2.1). So a token cannot add a line to the header it is used in.
func notTokenChar(r rune) bool { return r <= ' ' || r > '~' }

// expiry reads a number of seconds, or a string with one. What is not positive, or not a number, is unknown: 0.
func expiry(raw json.RawMessage) time.Duration {
	s := strings.Trim(string(raw), `" `)
	seconds, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange), !(seconds > 0):
		return 0
	case seconds >= maxExpiry.Seconds():
		return maxExpiry
	}
	return time.Duration(seconds) * time.Second
}

// scopes reads a string, or an array of strings (Twitch). nil means that the provider did not say; an empty list that
// nobody knows, as after an empty string and what cannot be read.
func scopes(raw json.RawMessage, separator string) []string {
	var list []string
	if raw == nil || string(raw) == "null" {
		return nil
	}
	if json.Unmarshal(raw, &list) == nil {
		return scopeTokens(list)
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return []string{}
	}
	return scopeTokens(strings.FieldsFunc(s, func(r rune) bool {
		return r == ' ' || strings.ContainsRune(separator, r)
	}))
}
