package oauth_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/oauth"
	"github.com/tabard-id/tabard/internal/secret"
)

// A claims challenge goes through a browser: it is a bounded JSON object that repeats nothing of what was sent, or
// none. No log of the error shows it.
func TestM05_ClaimsAreBounded(t *testing.T) {
	const sent = "refresh-token-canary"
	for name, row := range map[string]struct{ claims, want string }{
		"a text":             {strconv.Quote(`{"access_token":{"acrs":{"essential":true}}}`), `{"access_token":{"acrs":{"essential":true}}}`},
		"an object":          {`{"id_token":{"n":12345678901234567890}}`, `{"id_token":{"n":12345678901234567890}}`},
		"nothing":            {`""`, ""},
		"an empty object":    {`{}`, ""},
		"null":               {`null`, ""},
		"a list":             {`["x"]`, ""},
		"a text that is not": {`"{"`, ""},
		"a member twice":     {strconv.Quote(`{"a":1,"a":2}`), ""},
		"too long":           {`{"a":"` + strings.Repeat("x", 2048) + `"}`, ""},
		"what was sent":      {`{"a":"` + sent + `"}`, ""},
		"sent, escaped":      {`{"a":"\u0072efresh-token-canary"}`, ""},
		"sent, in its name":  {`{"x-` + sent + `":1}`, ""},
	} {
		_, err := oauth.Classify(400, []byte(`{"error":"interaction_required","suberror":"basic_action","claims":`+row.claims+`}`), broker.Vendor{}, secret.New(sent))
		e := upstream(t, err)
		if e.Claims.Expose() != row.want || e.Sub != "basic_action" {
			t.Errorf("%s: got %q, suberror %q, want %q", name, e.Claims.Expose(), e.Sub, row.want)
		}
		if strings.Contains(e.Error(), "essential") {
			t.Errorf("%s: the error has the claims: %v", name, e)
		}
	}
	_, err := oauth.Classify(400, []byte(`{"error":"invalid_grant","suberror":"`+sent+`"}`), broker.Vendor{}, secret.New(sent))
	if e := upstream(t, err); e.Sub != "" {
		t.Errorf("got suberror %q", e.Sub)
	}
}
