package awsapi_test

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// FuzzCanonical: whatever path, query and header value a request has, we accept what the SDK's signer signs, unless we
// refuse its path or query as such; and never after a change.
func FuzzCanonical(f *testing.F) {
	f.Add("tags/arn%3Aaws", "tagKeys=a&tagKeys=l%20m", "a  b", "{}")
	f.Add("a b/é/%2F", "x=~&x=%C3%A9&a-b=1&a/b=2", " x ", "")
	f.Add("identities/oauth2/token", "", "", `{"scopes":[]}`)
	f.Fuzz(func(t *testing.T, path, query, value, body string) {
		r, err := http.NewRequest("POST", "http://"+host+"/"+path, strings.NewReader(body))
		if err != nil || len(body) > 1000 {
			return
		}
		r.URL.RawQuery, r.URL.Fragment = query, ""
		r.Header.Set("X-Amz-Fuzz", value)
		if hasBadByte(query) || hasBadByte(value) || hasBadByte(r.URL.EscapedPath()) || strings.ContainsAny(r.URL.EscapedPath(), "?#") {
			return
		}
		sign(t, r, body)
		var wire bytes.Buffer
		if r.Write(&wire) != nil {
			return
		}
		got, err := http.ReadRequest(bufio.NewReader(&wire))
		if err != nil {
			return
		}
		_, err = verifier().Verify(got, []byte(body))
		if refused(err) {
			return
		}
		if err != nil {
			t.Fatalf("path %q query %q value %q: %v", path, query, value, err)
		}
		got.Header.Set("X-Amz-Fuzz", "changed"+value)
		if _, err := verifier().Verify(got, []byte(body)); err == nil {
			t.Error("accepted after a change")
		}
	})
}

// refused reports whether a request was refused before its signature was compared.
func refused(err error) bool {
	if err == nil {
		return false
	}
	for _, s := range []string{"segment", "presigned", "percent-encoded", "not a path"} {
		if strings.Contains(err.Error(), s) {
			return true
		}
	}
	return false
}

func hasBadByte(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' && r != ' ' || r == 0x7f || r > 0x7e }) || strings.Contains(s, ";")
}

func BenchmarkVerify(b *testing.B) {
	body := tokenBody(400)
	r := received(b, sign(b, clientRequest(b, "POST", tokenPath, body), body))
	v := verifier()
	raw := []byte(body)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(r, raw); err != nil {
			b.Fatal(err)
		}
	}
}
