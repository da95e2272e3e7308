package api

import (
	"fmt"
	"io"
	"log/slog"
)

// Sensitive is a member that the model marks as sensitive. It marshals and unmarshals as a JSON string and prints as
// a mask. It is a string and so no safe place for a secret: awsapi turns an incoming one into secret.Text at once, and
// makes an outgoing one last. The conversions string(s) and Sensitive(s) are the places to look at in a review.
type Sensitive string

// Format masks the value under every verb and flag.
func (Sensitive) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[secret]") }

// LogValue masks the value in log/slog.
func (Sensitive) LogValue() slog.Value { return slog.StringValue("[secret]") }
