package daemon

import (
	"fmt"
	"strconv"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/ceiling"
	"github.com/tabard-id/tabard/internal/identity"
)

// Bounds are what workload identities and delegations are held to where nobody set anything else.
type Bounds struct {
	UsersPerHour      int64 // users whose tokens a workload identity may have in an hour; 0 means 1000, negative none
	ReleasesPerMinute int64 // 0 or negative: none
	DelegationDays    int64 // how far ahead a delegation may end; 0 means 90
	AuditKeepDays     int64 // how long every record of the trail stays; 0 means 30, negative no time
	UserTokenHours    int64 // how long a token of a user lives whose issuer has back-channel logout; 0 means 1
}

// Admission is what is admitted of requests and connections before anybody is known. Zeros are the defaults.
type Admission struct {
	Connections           int64 // at once; 0 means 4096, negative any number
	ConnectionsPerAddress int64 // 0 means 256, negative any number
	BodyMemoryMiB         int64 // of requests that are being received; 0 means 64
}

// maxBound is the largest value of a bound that can be set.
const maxBound = 1_000_000_000

// limits are the ceilings of a workload identity for which nothing was set.
func (b Bounds) limits() ceiling.Limits {
	if b.UsersPerHour == 0 {
		b.UsersPerHour = ceiling.DefaultUsersPerHour
	}
	return ceiling.Limits{UsersPerHour: max(0, b.UsersPerHour), ReleasesPerMinute: max(0, b.ReleasesPerMinute)}
}

// delegation is how far ahead a delegation may end.
func (b Bounds) delegation() time.Duration {
	if b.DelegationDays == 0 {
		return identity.MaxDelegation
	}
	return time.Duration(b.DelegationDays) * 24 * time.Hour
}

// auditKeep is how long every record of the trail stays.
func (b Bounds) auditKeep() time.Duration {
	if b.AuditKeepDays == 0 {
		b.AuditKeepDays = 30
	}
	return time.Duration(max(0, b.AuditKeepDays)) * 24 * time.Hour
}

// userTokenLife is how long a workload access token that is made of a user's JWT may live.
func (b Bounds) userTokenLife() time.Duration {
	return max(identity.UserTokenLife, time.Duration(b.UserTokenHours)*time.Hour)
}

// isBound reports whether the setting is a number of Bounds.
func isBound(name string) bool {
	switch name {
	case "users-per-hour", "releases-per-minute", "delegation-days", "audit-keep-days", "user-token-hours",
		"max-connections", "max-connections-per-address", "body-memory":
		return true
	}
	return false
}

// setBound reads a setting of which isBound holds.
func (c *Config) setBound(name, value string) error {
	b := &c.Bounds
	least, most := int64(0), int64(maxBound)
	switch name {
	case "delegation-days":
		least, most = 1, 3650
	case "audit-keep-days":
		most = 36500
	case "user-token-hours":
		least, most = 1, 24
	case "body-memory":
		least, most = 4, 65536
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < least || n > most {
		return fmt.Errorf("%s is a number from %d to %d, not %q", name, least, most, value)
	}
	switch name {
	case "delegation-days":
		b.DelegationDays = n
	case "audit-keep-days":
		if b.AuditKeepDays = n; n == 0 {
			b.AuditKeepDays = -1 // said to be none
		}
	case "user-token-hours":
		b.UserTokenHours = n
	case "users-per-hour":
		if b.UsersPerHour = n; n == 0 {
			b.UsersPerHour = -1 // said to be none
		}
	case "releases-per-minute":
		b.ReleasesPerMinute = n
	case "max-connections":
		c.Admission.Connections = orNone(n)
	case "max-connections-per-address":
		c.Admission.ConnectionsPerAddress = orNone(n)
	case "body-memory":
		c.Admission.BodyMemoryMiB = n
	}
	return nil
}

// orNone is a bound that was set: 0 says that there is none.
func orNone(n int64) int64 {
	if n == 0 {
		return -1
	}
	return n
}

// newCeilings makes the ceilings that the Guard asks. They are bound to it when it and the agents are there.
func (s *Server) newCeilings() (access.Ceilings, error) {
	var err error
	s.ceilings, err = ceiling.New(ceiling.Config{Store: s.db, Workloads: s.db, Now: s.config.Now, Defaults: s.config.Bounds.limits()})
	return s.ceilings, err
}
