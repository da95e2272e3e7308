package daemon

import (
	"context"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/sink"
)

// given is a store in which every sink was given the trail up to a checkpoint.
type given struct {
	sink.Store
	checkpoint int64
}

func (g given) SinkCursor(context.Context, access.Account, string) (string, int64, error) {
	return "", g.checkpoint, nil
}

// M15: a sink that confirms nothing never counts as one that has the records, whatever it was given.
func TestM15_OnlySinksThatConfirmCount(t *testing.T) {
	file, logs := sink.NewFile("x"), &sink.Syslog{Target: "syslog+udp://logs"}
	for _, c := range []struct {
		what  string
		sinks []sink.Sink
		at    int64
		has   bool
		code  fault.Code
	}{
		{"no sink", nil, 0, true, ""},
		{"a file that has it", []sink.Sink{file}, 7, true, ""},
		{"a file that lags", []sink.Sink{file}, 6, false, ""},
		{"syslog alone", []sink.Sink{logs}, 7, false, fault.Denied},
		{"both, the file has it", []sink.Sink{logs, file}, 7, true, ""},
		{"both, the file lags", []sink.Sink{logs, file}, 6, false, ""},
		{"a collector that has it", []sink.Sink{&sink.HTTPS{URL: "https://logs"}}, 7, true, ""},
	} {
		s := &Server{audit: &auditing{}}
		for _, one := range c.sinks {
			s.audit.sinks = append(s.audit.sinks, sink.New(sink.Config{Store: given{checkpoint: c.at}, Sink: one, Now: time.Now}))
		}
		has, err := s.carried(t.Context(), "000000000000", 7)
		if has != c.has || fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %t, %v", c.what, has, err)
		}
	}
}
