package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpreadIsMedianAndBounds(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{Median: 3, Min: 3, Max: 3}},
		{[]float64{9, 1, 5}, spread{Median: 5, Min: 1, Max: 9}},
		{[]float64{4, 1, 2, 8}, spread{Median: 3, Min: 1, Max: 8}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("spreadOf(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestSpreadLeavesTheOrderOfRounds(t *testing.T) {
	values := []float64{3, 1, 2}
	spreadOf(values)
	if diff := cmp.Diff([]float64{3, 1, 2}, values); diff != "" {
		t.Errorf("the rounds were reordered (-want +got):\n%s", diff)
	}
}

func TestPercentileIsNearestRank(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{nil, 50, 0},
		{[]time.Duration{7}, 99, 7},
		{[]time.Duration{1, 2, 3, 4}, 50, 2},
		{[]time.Duration{1, 2, 3, 4, 5}, 50, 3},
		{hundred, 99, 99},
		{hundred, 100, 100},
		{hundred, 0, 1},
	} {
		if got := percentile(c.sorted, c.p); got != c.want {
			t.Errorf("percentile of %d values at %v = %d, want %d", len(c.sorted), c.p, got, c.want)
		}
	}
}

func TestPerThousandIsSecondsForThousandRequests(t *testing.T) {
	if got := perThousand(260*time.Millisecond, 20_000); got != 0.013 {
		t.Errorf("perThousand = %v, want 0.013", got)
	}
	if got := perThousand(time.Second, 0); got != 0 {
		t.Errorf("perThousand of no requests = %v, want 0", got)
	}
}

func TestRatiosAreRoundByRound(t *testing.T) {
	got := ratios([]float64{8, 9, 10}, []float64{1, 0, 2})
	if diff := cmp.Diff([]float64{8, 5}, got); diff != "" {
		t.Errorf("ratios (-want +got):\n%s", diff)
	}
}
