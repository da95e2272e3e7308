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
		"Bearer wat1." + long: true, " ses1." + long + "\n": true, `"wat1.` + long + `"`: true, "leaked: tabard_" + strings.Repeat("A", 40) + ".": true,
		"it was wat1." + long + ".": true, "https://tabard.example.com/?token=wat1." + long: true, "eyJhbGciOiJub25lIn0." + long + ". x": true,
		"": false, "calendar-agent": false, "wat1.": false, "wat1.agent": false, "tabard_prod": false,
		"tabard_" + strings.Repeat("a", 40): false, "eyJ": false, "eyJ." + long: false,
		"xwat1." + long: false, "wat1.2 and " + long: false,
	} {
		if got := secret.IsCredential(text); got != want {
			t.Errorf("%q: got %t", text, got)
		}
	}
}
