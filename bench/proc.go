package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every architecture that Go runs on (proc(5)).
const tick = 10 * time.Millisecond

// stat is what we need of /proc/PID/stat.
type stat struct {
	pid, parent int
	name        string
	own         time.Duration // user and system time
	reaped      time.Duration // the same of its children that have ended, and of theirs
}

// parseStat reads the line of /proc/PID/stat (proc(5)). The name, in parentheses, may itself have spaces and
// parentheses.
func parseStat(line []byte) (stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("a stat line without a name")
	}
	s := stat{name: string(line[open+1 : end])}
	fields := bytes.Fields(line[end+1:])
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("a stat line with %d fields after the name", len(fields))
	}
	// Fields are numbered from 1; the first after the name is 3.
	var errs []error
	number := func(field int) int64 {
		n, err := strconv.ParseInt(string(fields[field-3]), 10, 64)
		errs = append(errs, err)
		return n
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(line[:open])))
	errs = append(errs, err)
	s.pid, s.parent = pid, int(number(4))
	s.own = time.Duration(number(14)+number(15)) * tick
	s.reaped = time.Duration(number(16)+number(17)) * tick
	return s, errors.Join(errs...)
}

func readStat(pid int) (stat, error) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(line)
}

// processCPU is the user and system time of one process so far.
func processCPU(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	return s.own, err
}

// treeCPU is the user and system time so far of a process and all its descendants, those that have ended included. A
// child that ends takes its time to its parent's count, so the sum never goes back.
func treeCPU(root int) (time.Duration, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var all []stat
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // it ended while we looked
		}
		if err == nil {
			all = append(all, s)
		}
	}
	return sumTree(all, root)
}

// sumTree adds up root and its descendants.
func sumTree(all []stat, root int) (time.Duration, error) {
	byPID, children := map[int]stat{}, map[int][]int{}
	for _, s := range all {
		byPID[s.pid] = s
		children[s.parent] = append(children[s.parent], s.pid)
	}
	if _, ok := byPID[root]; !ok {
		return 0, fmt.Errorf("process %d is gone", root)
	}
	var sum time.Duration
	for next := []int{root}; len(next) > 0; {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		sum += byPID[pid].own + byPID[pid].reaped
	}
	return sum, nil
}

// residentKiB is the memory of a process that is in RAM (VmRSS), in KiB.
func residentKiB(pid int) (int, error) {
	doc, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(doc) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			fields := bytes.Fields(rest)
			if len(fields) == 2 && string(fields[1]) == "kB" {
				return strconv.Atoi(string(fields[0]))
			}
		}
	}
	return 0, errors.New("no VmRSS in the status of the process")
}
