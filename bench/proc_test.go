package main

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A line as the kernel writes it, of a process whose name is meant to mislead.
const statLine = "4711 (a) b (R) 1 2) S 42 4711 4711 0 -1 4194304 1000 2000 3 4 150 25 1000 200 20 0 12 0 8888 123456 789 18446744073709551615\n"

func TestParseStatReadsTimesAfterTheName(t *testing.T) {
	got, err := parseStat([]byte(statLine))
	if err != nil {
		t.Fatal(err)
	}
	want := stat{pid: 4711, parent: 42, name: "a) b (R) 1 2", own: 1750 * time.Millisecond, reaped: 12 * time.Second}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(stat{})); diff != "" {
		t.Errorf("parseStat (-want +got):\n%s", diff)
	}
}

func TestParseStatRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, line := range []string{"", "1 2 3", "1 (x) S 1", "1 )x( S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
		"1 (x) S 1 4711 4711 0 -1 4194304 1 2 3 4 user 25 1 2 20", "one (x) S 1 4711 4711 0 -1 4194304 1 2 3 4 150 25 1 2 20"} {
		if s, err := parseStat([]byte(line)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", line, s)
		}
	}
}

func TestSumTreeCountsLivingAndEndedDescendants(t *testing.T) {
	all := []stat{
		{pid: 1, parent: 0, own: 99 * time.Second},
		{pid: 10, parent: 1, own: time.Second, reaped: 2 * time.Second},
		{pid: 11, parent: 10, own: 4 * time.Second},
		{pid: 12, parent: 11, own: 8 * time.Second, reaped: 16 * time.Second},
		{pid: 20, parent: 1, own: 32 * time.Second},
	}
	got, err := sumTree(all, 10)
	if err != nil || got != 31*time.Second {
		t.Errorf("sumTree = %s, %v, want 31s", got, err)
	}
	if _, err := sumTree(all, 13); err == nil {
		t.Error("sumTree of a process that is not there: want an error")
	}
}

func TestSumTreeStaysWhenAChildEnds(t *testing.T) {
	before := []stat{{pid: 10, own: time.Second}, {pid: 11, parent: 10, own: 3 * time.Second, reaped: time.Second}}
	after := []stat{{pid: 10, own: time.Second, reaped: 4 * time.Second}}
	a, err1 := sumTree(before, 10)
	b, err2 := sumTree(after, 10)
	if err1 != nil || err2 != nil || a != b {
		t.Errorf("%s (%v) before the child ended, %s (%v) after", a, err1, b, err2)
	}
}

func TestProcessCPUGrowsWithWork(t *testing.T) {
	before, err := processCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for x := 1; ; x++ {
		if x%(1<<20) != 0 {
			continue
		}
		after, err := treeCPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after-before >= 5*tick {
			return // otherwise the test's own time limit ends it
		}
	}
}

func TestResidentMemoryIsThere(t *testing.T) {
	kib, err := residentKiB(os.Getpid())
	if err != nil || kib < 1024 {
		t.Errorf("residentKiB of this process = %d, %v, want at least 1 MiB", kib, err)
	}
}
