package daemon

import (
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/vault"
)

// B12: a key of a ring opens what it sealed for as long as that can live, also where the setting is raised, and a
// little longer for clocks that differ.
func TestB12_RingsOverlapByTheLongestLife(t *testing.T) {
	for _, c := range []struct {
		bounds Bounds
		ring   vault.Ring
		life   time.Duration
	}{
		{Bounds{}, vault.RingTokens, time.Hour},
		{Bounds{UserTokenHours: 1}, vault.RingTokens, time.Hour},
		{Bounds{UserTokenHours: 24}, vault.RingTokens, 24 * time.Hour},
		{Bounds{}, vault.RingSessions, time.Hour},
		{Bounds{UserTokenHours: 24}, vault.RingSessions, time.Hour},
	} {
		if got, least := ringOverlaps(c.bounds)[c.ring], c.life+time.Minute; got < least {
			t.Errorf("%+v: the keys of %s overlap by %s, want at least %s", c.bounds, c.ring, got, least)
		}
	}
}
