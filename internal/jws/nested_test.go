package jws_test

import "testing"

func TestClaims_Nested(t *testing.T) {
	c := ok(claims(t, `{"a":"1","o":{"p":{"q":"2","n":7,"b":true,"l":["x"]},"p/q2":"3"},"https://x.example/claim":"4","two/ways":"5","two":{"ways":"6"},
		"deep":{"x/y":{"z":"7"}},"text":"{\"p\":1}","empty":{"":"8"}}`))(t)
	for path, want := range map[string]string{
		"a": "1", "o/p/q": "2", "o/p/n": "7", "o/p/b": "true", "o/p/q2": "3", "https://x.example/claim": "4", "deep/x/y/z": "7", "empty/": "8",
	} {
		if got, ok := c.Nested(path); got != want || !ok {
			t.Errorf("%s: got %q, %v, want %q", path, got, ok, want)
		}
	}
	for _, path := range []string{"", "/", "o", "o/p", "o/p/l", "o/p/q/r", "two/ways", "text/p", "missing", "a/", "o//p/q", "/a"} {
		if got, ok := c.Nested(path); ok {
			t.Errorf("%s: got %q, want nothing", path, got)
		}
	}
}
