package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/store"
	"github.com/tabard-id/tabard/internal/vault"
)

// benchEngines runs f on both engines.
func benchEngines(b *testing.B, f func(b *testing.B, db *store.DB)) {
	b.Run("sqlite", func(b *testing.B) {
		f(b, open(b, store.Config{SQLitePath: filepath.Join(b.TempDir(), "tabard.db")}))
	})
	b.Run("postgres", func(b *testing.B) {
		url := peer.Postgres(b)
		f(b, open(b, store.Config{PostgresURL: func() string { return url }}))
	})
}

// cpu returns the processor time of this process so far. A read of PostgreSQL waits for most of its time, a commit for
// nearly all of it: what is worth trimming shows here.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkConnection(b *testing.B) {
	benchEngines(b, func(b *testing.B, db *store.DB) {
		must(b, db.CreateProvider(b.Context(), aProvider(account, "prov1", "google")))
		for i := range 200 {
			c := aConnection(account, fmt.Sprintf("%064x", i), "prov1")
			c.Access, c.Refresh = make(vault.Sealed, 1200), make(vault.Sealed, 200)
			must(b, db.SwapConnection(b.Context(), c, 0))
		}
		b.ReportAllocs()
		b.ResetTimer()
		before := cpu()
		for i := range b.N {
			c, err := db.Connection(context.Background(), account, fmt.Sprintf("%064x", i%200))
			if err != nil || c.State != broker.Active {
				b.Fatal(c.State, err)
			}
		}
		b.ReportMetric(float64((cpu()-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
	})
}

// BenchmarkAppend reports what one record costs in batches of several sizes, with the share of the commit.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 16, 64} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			benchEngines(b, func(b *testing.B, db *store.DB) {
				c := &chain{writer: "w"}
				var spent time.Duration
				b.ReportAllocs()
				for b.Loop() {
					batch := c.records(size, account, "calendar")
					before := cpu()
					must(b, db.Append(context.Background(), batch))
					spent += cpu() - before
				}
				b.ReportMetric(float64(spent.Nanoseconds())/1e3/float64(b.N*size), "cpu-µs/record")
			})
		})
	}
}

func BenchmarkCachedProvider(b *testing.B) {
	benchEngines(b, func(b *testing.B, db *store.DB) {
		must(b, db.CreateProvider(b.Context(), aProvider(account, "prov1", "google")))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := db.Provider(context.Background(), account, "google"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSecondWall is the read of the hot path with row-level security and without, on one database, and with the
// scope changing at each read, which is what accounts that share a connection pay.
func BenchmarkSecondWall(b *testing.B) {
	url := peer.Postgres(b)
	db := open(b, store.Config{PostgresURL: func() string { return url }, MaxConns: 1})
	for _, a := range []access.Account{account, other} {
		p := aProvider(a, "prov"+string(a), "google")
		p.CallbackID = "callback" + string(a)
		must(b, db.CreateProvider(b.Context(), p))
		for i := range 200 {
			c := aConnection(a, fmt.Sprintf("%064x", i), p.UID)
			c.ID, c.Access = fmt.Sprint("c", a, i), make(vault.Sealed, 1200)
			must(b, db.SwapConnection(b.Context(), c, 0))
		}
	}
	for _, wall := range []struct{ name, alter string }{{"down", "DISABLE"}, {"up", "ENABLE"}, {"changing", "ENABLE"}} {
		b.Run(wall.name, func(b *testing.B) {
			must(b, db.TestOnlyWrite(b.Context(), func(ctx context.Context, s store.Statements) error {
				return s.Exec(ctx, "ALTER TABLE connections "+wall.alter+" ROW LEVEL SECURITY")
			}))
			b.ResetTimer()
			for i := range b.N {
				a := account
				if wall.name == "changing" && i%2 == 1 {
					a = other
				}
				if c, err := db.Connection(context.Background(), a, fmt.Sprintf("%064x", i%200)); err != nil || c.Account != a {
					b.Fatal(c.Account, err)
				}
			}
		})
	}
}
