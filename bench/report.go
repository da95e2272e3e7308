package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// report is the outcome of a run.
type report struct {
	Time        time.Time `json:"time"`
	Machine     string    `json:"machine"`
	Connections int       `json:"connections"`
	Requests    int       `json:"requests"` // of a workload in one round
	Rounds      int       `json:"rounds"`
	Rows        []row     `json:"rows"`
}

// row is one subject. CPU figures are CPU-seconds per 1,000 requests, user and system time together.
type row struct {
	Name     string  `json:"name"`
	Server   spread  `json:"serverCpuPer1000"`
	Database *spread `json:"databaseCpuPer1000,omitempty"`
	Total    spread  `json:"cpuPer1000"`
	ToHello  spread  `json:"ratioToHello"`
	ToEcho   spread  `json:"ratioToEcho"`
	P50      float64 `json:"p50Millis"`
	P99      float64 `json:"p99Millis"`
	Memory   int     `json:"residentKiB"`
	Errors   int     `json:"errors"`
}

func newReport(o options, subjects []*subject) *report {
	r := &report{Time: time.Now().UTC().Truncate(time.Second), Machine: describeMachine(), Connections: o.connections, Requests: o.requests, Rounds: o.rounds}
	hello, echo := subjects[0].total(), subjects[1].total()
	for _, s := range subjects {
		total := s.total()
		line := row{
			Name: s.name, Server: spreadOf(s.server), Total: spreadOf(total), ToHello: spreadOf(ratios(total, hello)),
			ToEcho: spreadOf(ratios(total, echo)), Memory: s.memory, Errors: s.errors,
		}
		if s.master != 0 {
			database := spreadOf(s.database)
			line.Database = &database
		}
		var all []time.Duration
		for _, w := range s.latency {
			all = append(all, w.latencies...)
		}
		slices.Sort(all)
		line.P50, line.P99 = millis(percentile(all, 50)), millis(percentile(all, 99))
		r.Rows = append(r.Rows, line)
	}
	return r
}

// total is the server's CPU time and the database's together, by round.
func (s *subject) total() []float64 {
	sum := slices.Clone(s.server)
	for i := range sum {
		sum[i] += s.database[i]
	}
	return sum
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// failure is an error where the run had any: a figure with errors in it is of no use.
func (r *report) failure() error {
	var errs []error
	for _, line := range r.Rows {
		if line.Errors > 0 {
			errs = append(errs, fmt.Errorf("%s: %d requests failed", line.Name, line.Errors))
		}
	}
	return errors.Join(errs...)
}

// write prints the table.
func (r *report) write(out io.Writer) error {
	fmt.Fprintf(out, "%s  %s  %d connections  %d requests x %d rounds (floors %d)\n\n", r.Time.Format(time.RFC3339), r.Machine, r.Connections, r.Requests, r.Rounds, r.Requests*floorFactor)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tCPU-s/1k\t(min..max)\tserver\tdatabase\t/ hello\t(min..max)\t/ echo\tp50 ms\tp99 ms\tRSS MiB\terrors\t")
	for _, l := range r.Rows {
		database := "-"
		if l.Database != nil {
			database = fmt.Sprintf("%.4f", l.Database.Median)
		}
		fmt.Fprintf(w, "%s\t%.4f\t(%.4f..%.4f)\t%.4f\t%s\t%.1f\t(%.1f..%.1f)\t%.1f\t%.2f\t%.2f\t%.0f\t%d\t\n", l.Name, l.Total.Median, l.Total.Min, l.Total.Max,
			l.Server.Median, database, l.ToHello.Median, l.ToHello.Min, l.ToHello.Max, l.ToEcho.Median, l.P50, l.P99, float64(l.Memory)/1024, l.Errors)
	}
	return w.Flush()
}
