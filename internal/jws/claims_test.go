package jws_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/jws"
	"github.com/tabard-id/tabard/internal/jws/jwstest"
)

// claims reads a token with the payload.
func claims(t *testing.T, payload string) (jws.Claims, error) {
	t.Helper()
	token, err := parse(jwstest.SignRaw(t, "ES256", `{"alg":"ES256"}`, payload, keypairs().EC))
	return token.Claims, err
}

func TestA21_NumericDates(t *testing.T) {
	for _, v := range []string{
		"1900000000000", "-5", "0", "-0", "0.5", "1e300", "1.9e9", "1900000000.5e0", `"1900000000"`, "null", "[1900000000]", "{}", "true",
		"9223372036854775808", strings.Repeat("9", 400), "100000000000",
	} {
		c := ok(claims(t, `{"exp":`+v+`}`))(t)
		at, err := c.Time("exp")
		wantCode(t, "exp "+v, err, fault.Unauthenticated)
		if want := "the token has a claim exp that is no number of seconds since 1970"; !at.IsZero() || fault.Public(err).Msg != want {
			t.Errorf("exp %.20s: got %v and %q, want no time and %q", v, at, fault.Public(err).Msg, want)
		}
	}
	for _, v := range []string{"NaN", "0x7fffffff", "+1900000000", "01900000000"} {
		_, err := claims(t, `{"exp":`+v+`}`)
		wantCode(t, "exp "+v, err, fault.Unauthenticated)
	}
	for v, want := range map[string]int64{"1900000000": 1900000000, "1900000000.999": 1900000000, "1": 1, "99999999999": 99999999999} {
		if at := ok(ok(claims(t, `{"exp":`+v+`}`))(t).Time("exp"))(t); !at.Equal(time.Unix(want, 0)) {
			t.Errorf("exp %s: got %v, want %v", v, at, time.Unix(want, 0))
		}
	}
	if at := ok(ok(claims(t, `{}`))(t).Time("exp"))(t); !at.IsZero() {
		t.Errorf("no exp: got %v, want the zero time", at)
	}
}

func TestClaims_AreNotConverted(t *testing.T) {
	c := ok(claims(t, `{"s":"a","empty":"","n":20,"exact":1.50,"b":true,"null":null,"list":["a","b"],"none":[],"mixed":["a",5],"nested":["a",null,["b"],{"c":1},false],"o":{"a":"b"}}`))(t)
	all := []string{"s", "empty", "n", "exact", "b", "null", "list", "none", "mixed", "nested", "o", "missing"}
	texts := map[string]string{"s": "a", "empty": ""}
	lists := map[string][]string{"s": {"a"}, "empty": {""}, "list": {"a", "b"}, "none": {}, "missing": nil}
	scalars := map[string]string{"s": "a", "empty": "", "n": "20", "exact": "1.50", "b": "true"}
	plain := map[string]any{
		"s": "a", "empty": "", "n": json.Number("20"), "exact": json.Number("1.50"), "b": true, "list": []any{"a", "b"}, "none": []any{}, "mixed": []any{"a", json.Number("5")},
		"nested": []any{"a", false},
	}
	for _, name := range all {
		if got, found := c.Plain(name); !reflect.DeepEqual(got, plain[name]) || found != (plain[name] != nil) {
			t.Errorf("Plain(%s): got %v, %v, want %v", name, got, found, plain[name])
		}
		want, is := texts[name]
		if got, found := c.String(name); got != want || found != is {
			t.Errorf("String(%s): got %q, %v, want %q, %v", name, got, found, want, is)
		}
		want, is = scalars[name]
		if got, found := c.Scalar(name); got != want || found != is {
			t.Errorf("Scalar(%s): got %q, %v, want %q, %v", name, got, found, want, is)
		}
		list, is := lists[name]
		got, err := c.Strings(name)
		if !slices.Equal(got, list) || (err == nil) != is {
			t.Errorf("Strings(%s): got %q, %v, want %q", name, got, err, list)
		}
		if msg := fmt.Sprintf("the token has a claim %s that is neither a string nor a list of strings", name); err != nil && fault.Public(err).Msg != msg {
			t.Errorf("Strings(%s): got %v, want %q", name, err, msg)
		}
		if got, want := c.Has(name), name != "missing"; got != want {
			t.Errorf("Has(%s): got %v, want %v", name, got, want)
		}
	}
}
