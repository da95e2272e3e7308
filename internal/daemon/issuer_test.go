package daemon

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/vault"
)

// B12: a key of a ring opens what it sealed for as long as that can live, and a little longer for clocks that differ.
func TestB12_RingsOverlapByTheLongestLife(t *testing.T) {
	for ring, life := range map[vault.Ring]time.Duration{vault.RingTokens: time.Hour, vault.RingSessions: time.Hour} {
		if got, least := ringOverlaps()[ring], life+time.Minute; got < least {
			t.Errorf("%s: keys overlap by %s, want at least %s", ring, got, least)
		}
	}
}
