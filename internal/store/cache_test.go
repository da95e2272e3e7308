package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestCacheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cache[string, int]
		loads := 0
		load := func(context.Context) (int, error) { loads++; return loads, nil }
		for _, step := range []struct {
			wait time.Duration
			want int
		}{{0, 1}, {cacheTTL - 1, 1}, {1, 2}, {cacheTTL / 2, 2}, {cacheTTL, 3}} {
			time.Sleep(step.wait)
			if v, err := c.get(t.Context(), "k", load); v != step.want || err != nil {
				t.Errorf("after %v more: got load %d, error %v, want load %d", step.wait, v, err, step.want)
			}
		}
	})
}

// A read that began before a write must not put the row of before into the cache after it.
func TestCacheReadThatBeganBeforeDrop(t *testing.T) {
	for name, forget := range map[string]func(*cache[string, string]){
		"drop":  func(c *cache[string, string]) { c.drop("k") },
		"clear": func(c *cache[string, string]) { c.clear() },
	} {
		t.Run(name, func(t *testing.T) {
			var c cache[string, string]
			loading, written := make(chan struct{}), make(chan struct{})
			first := make(chan string)
			go func() {
				v, _ := c.get(context.Background(), "k", func(context.Context) (string, error) {
					close(loading)
					<-written
					return "old", nil
				})
				first <- v
			}()
			<-loading
			forget(&c)
			fresh := func(context.Context) (string, error) { return "new", nil }
			if v, _ := c.get(t.Context(), "k", fresh); v != "new" {
				t.Errorf("a read after the write got %q, want new", v)
			}
			close(written)
			if v := <-first; v != "old" {
				t.Errorf("the read before the write got %q, want old", v)
			}
			if v, _ := c.get(t.Context(), "k", fresh); v != "new" {
				t.Errorf("the cache has %q, want new", v)
			}
		})
	}
}

func TestCacheLoadsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c cache[string, int]
		loads, release, results := 0, make(chan struct{}), make(chan int, 10)
		for range 10 {
			go func() {
				v, _ := c.get(context.Background(), "k", func(context.Context) (int, error) {
					loads++
					<-release
					return 7, nil
				})
				results <- v
			}()
		}
		synctest.Wait()
		close(release)
		for range 10 {
			if v := <-results; v != 7 {
				t.Errorf("got %d, want 7", v)
			}
		}
		if loads != 1 {
			t.Errorf("got %d loads, want 1", loads)
		}
	})
}

func TestCacheRemembersNoErrorsAndIsBounded(t *testing.T) {
	var c cache[int, int]
	down := errors.New("down")
	if _, err := c.get(t.Context(), 1, func(context.Context) (int, error) { return 0, down }); err != down {
		t.Errorf("got error %v, want %v", err, down)
	}
	for i := range 2 * cacheMax {
		if v, err := c.get(t.Context(), i, func(context.Context) (int, error) { return i, nil }); v != i || err != nil {
			t.Fatalf("got %d, error %v, want %d", v, err, i)
		}
	}
	if len(c.entries) != cacheMax || len(c.flights) != 0 {
		t.Errorf("got %d entries and %d flights, want %d and 0", len(c.entries), len(c.flights), cacheMax)
	}
}
