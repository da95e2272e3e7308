package sink

import (
	"bytes"
	"context"
	"fmt"
)

// HTTPS posts each batch as JSON Lines. Any 2xx means that the collector has it; redirects are not followed.
type HTTPS struct {
	URL string
	// Post posts one body with a deadline, with the bearer token where there is one, and returns the status.
	Post func(ctx context.Context, url string, body []byte) (status int, err error)
}

// Name implements Sink.
func (*HTTPS) Name() string { return "https" }

// Key implements Sink.
func (h *HTTPS) Key() string { return h.URL }

// Confirms implements Sink: a status of success says so.
func (*HTTPS) Confirms() bool { return true }

// Send implements Sink.
func (h *HTTPS) Send(ctx context.Context, lines [][]byte) error {
	status, err := h.Post(ctx, h.URL, append(bytes.Join(lines, []byte{'\n'}), '\n'))
	if err != nil {
		return fmt.Errorf("the audit collector does not answer: %w", err)
	}
	if status/100 != 2 {
		return fmt.Errorf("the audit collector answered %d", status)
	}
	return nil
}

// Close implements Sink.
func (*HTTPS) Close() error { return nil }
