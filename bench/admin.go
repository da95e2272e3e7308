package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// fetch gets a page of the server's admin listener.
func (s *subject) fetch(ctx context.Context, path string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.child.Admin+path, nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 2 * time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", path, resp.Status)
	}
	return read(resp.Body)
}

// released is the series that counts the records of vault hits. It is counted after the commit.
const released = `tabard_audit_records_total{action="GetResourceOauth2Token",decision="allow",outcome="released"} `

// records is how many releases the server has on record. A floor has none.
func (s *subject) records(ctx context.Context) (int, error) {
	if s.seed == nil {
		return 0, nil
	}
	n := -1
	err := s.fetch(ctx, "/metrics", func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		for lines.Scan() {
			if value, ok := strings.CutPrefix(lines.Text(), released); ok {
				f, err := strconv.ParseFloat(value, 64)
				n = int(f)
				return err
			}
		}
		return lines.Err()
	})
	if err == nil && n < 0 {
		err = errors.New("the server's metrics count no release")
	}
	return n, err
}

// profileTime is how long the server is profiled under load.
const profileTime = 5 * time.Second

// profileOf loads the server in a round that counts for nothing, and writes down where its time and memory go.
func (b *bench) profileOf(ctx context.Context, s *subject) error {
	loading, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := b.window(loading, s, maxRequests)
		done <- err
	}()
	name := strings.ReplaceAll(s.name, "/", "-")
	seconds := strconv.Itoa(int(profileTime.Seconds()))
	err := s.fetch(ctx, "/debug/pprof/profile?seconds="+seconds, b.save(name+"-cpu.pprof"))
	stop()
	if loadErr := <-done; !errors.Is(loadErr, context.Canceled) {
		err = errors.Join(err, loadErr)
	}
	return errors.Join(err, s.fetch(ctx, "/debug/pprof/allocs", b.save(name+"-allocs.pprof")))
}

func (b *bench) save(name string) func(io.Reader) error {
	return func(r io.Reader) error {
		f, err := os.OpenFile(filepath.Join(b.profile, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
}
