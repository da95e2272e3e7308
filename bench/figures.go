package main

import (
	"slices"
	"time"
)

// spread is a figure over the rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf returns zeros for no values.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return spread{Median: (s[(n-1)/2] + s[n/2]) / 2, Min: s[0], Max: s[n-1]}
}

// percentile is the smallest value that at least p percent of the sorted values do not exceed (nearest rank).
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(p / 100 * float64(len(sorted)))
	if float64(rank) < p/100*float64(len(sorted)) {
		rank++
	}
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// perThousand turns CPU time for so many requests into CPU-seconds per 1,000 requests.
func perThousand(cpu time.Duration, requests int) float64 {
	if requests == 0 {
		return 0
	}
	return cpu.Seconds() * 1000 / float64(requests)
}

// ratios divides round by round; a round without a divisor is left out.
func ratios(values, floor []float64) []float64 {
	var out []float64
	for i := range min(len(values), len(floor)) {
		if floor[i] > 0 {
			out = append(out, values[i]/floor[i])
		}
	}
	return out
}
