package awsapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tabard-id/tabard/internal/fault"
)

// serviceName is the name that SDKs sign both planes with.
const serviceName = "bedrock-agentcore"

// signature is a parsed Authorization header.
type signature struct {
	accessKey            string
	scope                string // day/region/service/aws4_request
	day, region, service string
	signed               []string // lower case, sorted, without repeats
	signedList           string   // as sent
	mac                  [sha256.Size]byte
	date                 string // X-Amz-Date
}

// Bounds of the header, far above what SDKs send.
const (
	maxAuthorization = 4096
	maxAccessKeyID   = 128
	maxSignedHeaders = 64
)

// parseAuthorization reads
// "AWS4-HMAC-SHA256 Credential=ID/day/region/service/aws4_request, SignedHeaders=a;b, Signature=hex".
func parseAuthorization(header string) (*signature, error) {
	malformed := func(what string) error {
		return fault.New(fault.SignatureInvalid, "the Authorization header is malformed: %s", what)
	}
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok || len(header) > maxAuthorization {
		return nil, fault.New(fault.SignatureInvalid, "the Authorization header is not of %s", algorithm)
	}
	var credential, signed, mac string
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.Trim(part, " "), "=")
		var field *string
		switch name {
		case "Credential":
			field = &credential
		case "SignedHeaders":
			field = &signed
		case "Signature":
			field = &mac
		default:
			return nil, malformed("it has a part other than Credential, SignedHeaders and Signature")
		}
		if *field != "" || value == "" {
			return nil, malformed(name + " is empty or there twice")
		}
		*field = value
	}
	s := &signature{signedList: signed}
	if n, err := hex.Decode(s.mac[:], bounded(mac, 2*sha256.Size)); err != nil || n != sha256.Size || mac != strings.ToLower(mac) {
		return nil, malformed("Signature is not 64 hexadecimal digits")
	}
	if err := s.parseCredential(credential); err != "" {
		return nil, malformed(err)
	}
	s.signed = strings.Split(signed, ";")
	if len(s.signed) > maxSignedHeaders {
		return nil, malformed("SignedHeaders names too many")
	}
	for i, h := range s.signed {
		if h == "" || h != strings.ToLower(h) || i > 0 && s.signed[i-1] >= h {
			return nil, malformed("SignedHeaders is not in lower case, sorted and without repeats")
		}
	}
	return s, nil
}

// bounded returns s, or nothing where it has not exactly n bytes.
func bounded(s string, n int) []byte {
	if len(s) != n {
		return nil
	}
	return []byte(s)
}

// parseCredential returns what is wrong, or "".
func (s *signature) parseCredential(credential string) string {
	id, scope, _ := strings.Cut(credential, "/")
	if id == "" || len(id) > maxAccessKeyID {
		return "the access key id is empty or too long"
	}
	s.accessKey, s.scope = id, scope
	var ok bool
	if s.day, scope, ok = strings.Cut(scope, "/"); ok {
		if s.region, scope, ok = strings.Cut(scope, "/"); ok {
			s.service, scope, ok = strings.Cut(scope, "/")
		}
	}
	if !ok || scope != terminator {
		return "Credential is not of the form id/date/region/service/" + terminator
	}
	return ""
}

// checkSigned makes sure that what we rely on is signed.
func (s *signature) checkSigned(h http.Header) error {
	has := func(name string) bool {
		_, found := slices.BinarySearch(s.signed, name)
		return found
	}
	for _, name := range []string{"host", "x-amz-date"} {
		if !has(name) {
			return fault.New(fault.SignatureInvalid, "header %s must be signed", name)
		}
	}
	for name := range h {
		if name != "Content-Type" && !hasAmzPrefix(name) {
			continue
		}
		if lower := strings.ToLower(name); !has(lower) {
			return fault.New(fault.SignatureInvalid, "header %s must be signed", clip(lower))
		}
	}
	return nil
}

func hasAmzPrefix(name string) bool {
	const prefix = "x-amz-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// writeCanonical writes the canonical request.
func (s *signature) writeCanonical(b *bytes.Buffer, r *http.Request, query string, bodyHash []byte) error {
	b.WriteString(r.Method)
	b.WriteByte('\n')
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if err := writePath(b, path); err != nil {
		return err
	}
	b.WriteByte('\n')
	b.WriteString(query)
	b.WriteByte('\n')
	for _, name := range s.signed {
		b.WriteString(name)
		b.WriteByte(':')
		if err := writeHeader(b, r, name); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(s.signedList)
	b.WriteByte('\n')
	b.Write(bodyHash)
	return nil
}

// writeHeader writes the values of one signed header, in the order sent, each trimmed and with runs of spaces made one.
func writeHeader(b *bytes.Buffer, r *http.Request, name string) error {
	if name == "host" { // net/http moves it out of the header
		writeValue(b, r.Host)
		return nil
	}
	values := r.Header[http.CanonicalHeaderKey(name)]
	if len(values) == 0 && name == "content-length" && r.ContentLength >= 0 {
		b.WriteString(strconv.FormatInt(r.ContentLength, 10))
		return nil
	}
	if len(values) == 0 {
		return fault.New(fault.SignatureInvalid, "header %s is signed but not there", clip(name))
	}
	for i, v := range values {
		if i > 0 {
			b.WriteByte(',')
		}
		writeValue(b, v)
	}
	return nil
}

func writeValue(b *bytes.Buffer, v string) {
	v = strings.Trim(v, " \t")
	if !strings.Contains(v, "  ") {
		b.WriteString(v)
		return
	}
	for i := 0; i < len(v); i++ {
		if v[i] != ' ' || v[i-1] != ' ' { // trimmed, so a space is never first
			b.WriteByte(v[i])
		}
	}
}

// writePath encodes each segment of the raw path once more, as SDKs do for all services but S3: %3A becomes %253A. A
// path that a client's normalization and ours could read differently is refused, as no operation has one.
func writePath(b *bytes.Buffer, path string) error {
	if path == "" || path[0] != '/' {
		return fault.New(fault.SignatureInvalid, "the request's target is not a path")
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "." || segment == ".." || segment == "" && path != "/" {
			return fault.New(fault.SignatureInvalid, "the request's path has an empty, . or .. segment")
		}
		b.WriteByte('/')
		writeEscaped(b, segment)
	}
	return nil
}

// writeEscaped percent-encodes all but RFC 3986's unreserved characters.
func writeEscaped(b *bytes.Buffer, s string) {
	const digits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
}
