package oauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/tabard-id/tabard/internal/broker"
)

const (
	maxAttribute = 512 // bytes; what is longer is left out
	maxScope     = 512 // bytes
	maxScopes    = 200 // of an answer; twice what a request may ask for
)

// setScopes writes the scopes as the vendor reads them: joined by its separator, those of the user apart where it asks
// for them apart.
func setScopes(query url.Values, v broker.Vendor, scopes []string) {
	users, app := v.SplitScopes(scopes)
	if len(app) > 0 {
		query.Set("scope", strings.Join(app, separator(v)))
	}
	if len(users) > 0 {
		query.Set(v.UserScopes, strings.Join(users, separator(v)))
	}
}

// scopeTokens returns what was granted: scopes (RFC 6749 §3.3; in an array one may have a space), and a bounded number
// of them, since they are written into each audit record of the connection. If one is something else, or there are
// more, then nobody knows what the token may do, and the list is empty (threat M02): without those it would say less
// than was granted.
func scopeTokens(list []string) []string {
	found := make([]string, 0, min(len(list), maxScopes))
	for _, s := range list {
		odd := strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' })
		switch {
		case s == "" || slices.Contains(found, s):
		case len(s) > maxScope || odd || len(found) == maxScopes:
			return []string{}
		default:
			found = append(found, s)
		}
	}
	return found
}

// tokenHeader is the header of a token request.
func (c *Client) tokenHeader(p broker.Provider, v broker.Vendor) http.Header {
	header := http.Header{
		"Accept":       {mediaTypeJSON}, // GitHub and others answer in another form without it
		"Content-Type": {mediaTypeForm},
		"User-Agent":   {c.agent},
	}
	if v.JSONBody {
		header.Set("Content-Type", mediaTypeJSON)
	}
	fill := strings.NewReplacer("{agent}", c.agent, "{client_id}", strings.Map(headerChar, p.ClientID))
	for name, value := range v.TokenHeaders {
		header.Set(name, fill.Replace(value))
	}
	return header
}

// headerChar keeps a client id from ending a header.
func headerChar(r rune) rune {
	if r <= ' ' || r > '~' {
		return '-'
	}
	return r
}

// encodeBody writes the parameters as the vendor reads them. One that occurs more than once is an array in JSON.
func encodeBody(v broker.Vendor, form url.Values) (string, error) {
	if !v.JSONBody {
		return form.Encode(), nil
	}
	members := make(map[string]any, len(form))
	for name, values := range form {
		members[name] = values
		if len(values) == 1 {
			members[name] = values[0]
		}
	}
	b, err := json.Marshal(members)
	return string(b), err
}

// parseAnswer reads an answer's members: one JSON object or, from a vendor that is known for it, a form.
func parseAnswer(body []byte, v broker.Vendor) (map[string]json.RawMessage, error) {
	if v.FormAnswer && !strings.HasPrefix(strings.TrimSpace(string(body)), "{") {
		return parseForm(body)
	}
	return parseObject(body)
}

// parseForm reads a form-encoded answer by the rules of parseObject. A body that names neither a token nor an error is
// no answer: any text at all can be read as a form.
func parseForm(body []byte) (map[string]json.RawMessage, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil || !form.Has("access_token") && !form.Has("error") {
		return nil, errors.New("the answer is neither a JSON object nor a form")
	}
	members := make(map[string]json.RawMessage, len(form))
	for name, values := range form {
		if len(values) != 1 {
			return nil, errors.New("the answer names a member twice")
		}
		if !utf8.ValidString(name) || !utf8.ValidString(values[0]) { // json.Marshal would put U+FFFD in its place
			return nil, errors.New("the answer is not UTF-8")
		}
		if members[name], err = json.Marshal(values[0]); err != nil {
			return nil, errors.New("the answer cannot be read")
		}
	}
	return members, nil
}

// notOK reports whether the vendor's own flag says that the request failed. A flag that is missing or odd is a failure.
func notOK(members map[string]json.RawMessage, v broker.Vendor) bool {
	return v.OKMember != "" && string(members[v.OKMember]) != "true"
}

// tokenObject finds the object that holds the token: the one that the vendor nests it in, if there is a token in it,
// else the answer itself.
func tokenObject(members map[string]json.RawMessage, v broker.Vendor) (object map[string]json.RawMessage, nested bool, err error) {
	raw, ok := members[v.TokenMember]
	if v.TokenMember == "" || !ok || string(raw) == "null" {
		return members, false, nil
	}
	inner, err := parseObject(raw)
	if err != nil {
		return nil, false, err
	}
	if _, ok := inner["access_token"]; !ok {
		return members, false, nil
	}
	return inner, true, nil
}

// bearer reports whether a token of that type is used as RFC 6750 says.
func bearer(kind string, v broker.Vendor) bool {
	same := func(s string) bool { return strings.EqualFold(s, kind) }
	return kind == "" || same("Bearer") || slices.ContainsFunc(v.TokenTypes, same)
}

// attributes picks what callers need, by the vendor's list: texts, and numbers as they are written. What is of another
// type, too long, or not printable is left out: it is no reason to lose a token. So is what repeats a token of the
// answer: an attribute is shown where a token is not.
func attributes(members map[string]json.RawMessage, v broker.Vendor) map[string]string {
	tokens := tokensOf(members, v)
	var found map[string]string
	for _, path := range v.Attributes {
		object, name := members, path
		if outer, inner, ok := strings.Cut(path, "."); ok {
			var err error
			if object, err = parseObject(members[outer]); err != nil {
				continue
			}
			name = inner
		}
		value, ok := attribute(object[name])
		if !ok || slices.ContainsFunc(tokens, func(t string) bool { return value == t || len(t) >= minRedacted && strings.Contains(value, t) }) {
			continue
		}
		if found == nil {
			found = map[string]string{}
		}
		found[path] = value
	}
	return found
}

// tokensOf finds every token in the answer, also those that are not taken.
func tokensOf(members map[string]json.RawMessage, v broker.Vendor) []string {
	objects := []map[string]json.RawMessage{members}
	if inner, err := parseObject(members[v.TokenMember]); err == nil {
		objects = append(objects, inner)
	}
	var found []string
	for _, object := range objects {
		for _, name := range []string{"access_token", "refresh_token", "id_token"} {
			if s, ok := text(object, name); ok && s != "" {
				found = append(found, s)
			}
		}
	}
	return found
}

func attribute(raw json.RawMessage) (string, bool) {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		var n json.Number
		if json.Unmarshal(raw, &n) != nil {
			return "", false
		}
		s = n.String()
	}
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	return s, s != "" && len(s) <= maxAttribute && !strings.ContainsFunc(s, odd)
}
