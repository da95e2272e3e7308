package main

import (
	"os"
	"strings"
	"sync/atomic"
	"time"
	_ "time/tzdata" // --zone works on machines without a time zone database
)

// clock is the time of everything in the demo: it is the real one plus what the story has skipped. The skips stay well
// below the five minutes by which a request's signature may be off.
type clock struct{ skipped atomic.Int64 }

// Now returns the demo's time.
func (c *clock) Now() time.Time { return time.Now().Add(time.Duration(c.skipped.Load())) }

// Skip moves the time forward.
func (c *clock) Skip(d time.Duration) { c.skipped.Add(int64(d)) }

// zoneOf returns the time zone with this IANA name; for "" the machine's own, or UTC where that has no name.
func zoneOf(name string) (*time.Location, error) {
	if name == "" {
		name = os.Getenv("TZ")
		if at, err := os.Readlink("/etc/localtime"); name == "" && err == nil {
			_, name, _ = strings.Cut(at, "zoneinfo/")
		}
		if zone, err := time.LoadLocation(name); err == nil && name != "" && name != "Local" {
			return zone, nil
		}
		return time.UTC, nil
	}
	return time.LoadLocation(name)
}
