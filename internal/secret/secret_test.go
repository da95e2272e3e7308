package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/secret"
)

const canary = "canary-5b1c9f"

type holder struct {
	name  string
	inner secret.Text
}

// naive shows why a String method is not enough: fmt reads unexported fields by reflection and never calls it.
type naive struct{ s string }

func (naive) String() string { return "[masked]" }

func TestG01_TextIsMaskedByEveryFormatter(t *testing.T) {
	text := secret.New(canary)
	values := []any{text, &text, []secret.Text{text}, map[string]secret.Text{"k": text}, holder{"n", text}, &holder{"n", text}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v", "%10.3s"} {
		for _, v := range values {
			args := []any{v}
			if strings.HasPrefix(verb, "%T") {
				args = []any{v, v}
			}
			if got := fmt.Sprintf(verb, args...); strings.Contains(got, canary) || strings.Contains(got, fmt.Sprintf("%x", canary)) {
				t.Errorf("Sprintf(%q, %T) = %q reveals the secret", verb, v, got)
			}
		}
	}
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("m", "text", text, "holder", holder{"n", text}, "group", slog.GroupValue(slog.Any("t", text)))
	}
	if strings.Contains(log.String(), canary) {
		t.Errorf("log reveals the secret: %s", log.String())
	}
	if got := fmt.Sprintf("%v", struct{ n naive }{naive{canary}}); !strings.Contains(got, canary) {
		t.Errorf("a String method alone now masks unexported fields (%q): the closure may no longer be needed", got)
	}
}

func TestMarshalingFails(t *testing.T) {
	if _, err := json.Marshal(map[string]any{"t": secret.New(canary)}); !errors.Is(err, secret.ErrMarshal) {
		t.Errorf("json.Marshal: got %v, want ErrMarshal", err)
	}
	if _, err := secret.New(canary).MarshalText(); !errors.Is(err, secret.ErrMarshal) {
		t.Errorf("MarshalText: got %v, want ErrMarshal", err)
	}
	if _, err := secret.New(canary).MarshalBinary(); !errors.Is(err, secret.ErrMarshal) {
		t.Errorf("MarshalBinary: got %v, want ErrMarshal", err)
	}
}

func TestExposeAndEqual(t *testing.T) {
	if got := secret.New(canary).Expose(); got != canary {
		t.Errorf("Expose: got %q, want %q", got, canary)
	}
	var zero secret.Text
	if !zero.IsZero() || zero.Expose() != "" || !secret.New("").IsZero() {
		t.Error("the zero Text is not empty")
	}
	if !secret.New("a").Equal(secret.New("a")) || secret.New("a").Equal(secret.New("b")) || zero.Equal(secret.New("a")) {
		t.Error("Equal is wrong")
	}
	if got := secret.New("a").Fingerprint(); got != "ca978112" {
		t.Errorf("Fingerprint: got %q, want ca978112", got)
	}
}
