package daemon

import (
	"testing"
	"time"
)

// M15: what nobody set keeps the trail for thirty days, and no number makes the floor negative.
func TestM15_TheTrailIsKeptForThirtyDays(t *testing.T) {
	for set, days := range map[int64]int64{0: 30, 7: 7, -1: 0} {
		if got := (Bounds{AuditKeepDays: set}).auditKeep(); got != time.Duration(days)*24*time.Hour {
			t.Errorf("set to %d: %s, want %d days", set, got, days)
		}
	}
}
