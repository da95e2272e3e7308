package awsapi

import (
	"net/http"
	"regexp"
	"strings"
)

// A traceparent of version 00 (W3C Trace Context §3.2.2): version, trace id, parent id, flags.
var traceparent = regexp.MustCompile(`^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)

// traceID returns the trace id of a request for the log, so that its line is found from the caller's traces. It is the
// only thing of the trace context that gets any further: 32 hexadecimal digits that are not all zero, of one header
// that is exactly a traceparent. Callers write what they like into tracestate, baggage and X-Amzn-Trace-Id, so those
// are not read.
func traceID(h http.Header) string {
	values := h.Values("Traceparent")
	if len(values) != 1 {
		return ""
	}
	m := traceparent.FindStringSubmatch(values[0])
	if m == nil || strings.Trim(m[1], "0") == "" || strings.Trim(m[2], "0") == "" {
		return ""
	}
	return m[1]
}
