package secret_test

import (
	"strings"
	"testing"

	"github.com/tabard-id/tabard/internal/secret"
)

func TestIsCredential(t *testing.T) {
	long := strings.Repeat("Ab0_-", 10)
	for text, want := range map[string]bool{
		"wat1." + long: true, "ses1." + long: true, "tabard_" + strings.Repeat("A", 40): true, "eyJhbGciOiJub25lIn0." + long + ".": true,
		"": false, "calendar-agent": false, "wat1.": false, "wat1.agent": false, "wat1." + long + "/x": false, "tabard_prod": false,
		"tabard_" + strings.Repeat("a", 40): false, "eyJ": false, "eyJ." + long: false, "eyJhbGciOiJub25lIn0." + long + ". x": false,
		"xwat1." + long: false, "https://tabard.example.com/wat1." + long: false,
	} {
		if got := secret.IsCredential(text); got != want {
			t.Errorf("%q: got %t", text, got)
		}
	}
}
