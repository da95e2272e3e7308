package awsapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/awsapi"
)

// Of a request's trace context only the id of a valid traceparent is taken, and nothing of what callers can write.
func TestG08_TraceContext(t *testing.T) {
	const id, valid = "4bf92f3577b34da6a3ce929d0e0e4736", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for value, want := range map[string]string{
		valid: id,
		"":    "",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": "",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": "",
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01": "",
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01": "",
		valid + "-x":                "",
		valid + "\n":                "",
		"x" + valid:                 "",
		strings.Repeat(valid, 1000): "",
	} {
		h := http.Header{"Tracestate": {"canary"}, "Baggage": {strings.Repeat("canary=1,", 900)}, "X-Amzn-Trace-Id": {"Root=canary"}}
		h.Set("Traceparent", value)
		if got := awsapi.TraceID(h); got != want {
			t.Errorf("traceparent %.80q: got %q, want %q", value, got, want)
		}
	}
	if got := awsapi.TraceID(http.Header{"Traceparent": {valid, valid}}); got != "" {
		t.Errorf("two traceparents: got %q", got)
	}
}
