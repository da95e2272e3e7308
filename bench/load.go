package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	requestTimeout = 30 * time.Second
	maxErrors      = 100     // a window with more is given up
	maxAnswer      = 1 << 20 // bytes of one body
)

// traffic is what one kind of server is asked.
type traffic struct {
	addr string
	// request returns the bytes of one HTTP/1.1 request for the second that now is in. A worker sends them again until
	// that second is over: the signer's work is not what is measured, and on a small machine it would disturb.
	request func(now time.Time) ([]byte, error)
	// check says what is wrong with the body of a 200.
	check func(body []byte) error
}

// window is what one burst of requests came to.
type window struct {
	requests  int
	errors    int
	firstErr  error
	latencies []time.Duration // sorted
}

// connections are kept open from window to window, as those of agents are.
type connections struct {
	traffic traffic
	conns   []*connection
}

type connection struct {
	net.Conn
	in   *bufio.Reader
	body []byte
}

func dial(ctx context.Context, t traffic, n int) (*connections, error) {
	c := &connections{traffic: t, conns: make([]*connection, n)}
	for i := range c.conns {
		var err error
		if c.conns[i], err = dialOne(ctx, t.addr); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

func dialOne(ctx context.Context, addr string) (*connection, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

func (c *connections) close() {
	for _, conn := range c.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// send makes n requests over all connections, each with one at a time. The error is about the bench itself; what goes
// wrong with a request is counted in the window.
func (c *connections) send(ctx context.Context, n int) (window, error) {
	var left, failed atomic.Int64
	left.Store(int64(n))
	took := make([][]time.Duration, len(c.conns))
	errs := make([]error, len(c.conns))
	var wg sync.WaitGroup
	for i := range c.conns {
		wg.Go(func() {
			took[i] = make([]time.Duration, 0, n/len(c.conns)*2)
			var request []byte
			var second int64
			for ctx.Err() == nil && failed.Load() <= maxErrors && left.Add(-1) >= 0 {
				begin := time.Now()
				if request == nil || begin.Unix() != second {
					var err error
					if request, err = c.traffic.request(begin); err != nil {
						errs[i] = err
						return
					}
					second, begin = begin.Unix(), time.Now()
				}
				if err := c.once(ctx, i, request); err != nil {
					failed.Add(1)
					if errs[i] == nil {
						errs[i] = err
					}
				}
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	w := window{errors: int(failed.Load()), latencies: slices.Concat(took...)}
	w.requests = len(w.latencies)
	slices.Sort(w.latencies)
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i >= 0 {
		w.firstErr = errs[i]
	}
	if w.errors == 0 && w.firstErr != nil {
		return w, w.firstErr
	}
	return w, ctx.Err()
}

// once makes one request on connection i, and replaces the connection where it is of no more use.
func (c *connections) once(ctx context.Context, i int, request []byte) error {
	conn := c.conns[i]
	body, usable, err := conn.exchange(request)
	if err == nil {
		err = c.traffic.check(body)
	}
	if !usable {
		_ = conn.Close()
		fresh, dialErr := dialOne(ctx, c.traffic.addr)
		if dialErr != nil {
			return errors.Join(err, dialErr)
		}
		c.conns[i] = fresh
	}
	return err
}

// exchange sends a request and reads the answer. It understands what our servers send and no more: HTTP/1.1 with a
// Content-Length. The body is valid until the next call. usable says whether the connection is good for another.
func (c *connection) exchange(request []byte) (body []byte, usable bool, err error) {
	if err := c.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, false, err
	}
	if _, err := c.Write(request); err != nil {
		return nil, false, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, false, err
	}
	status, err := parseStatus(line)
	if err != nil {
		return nil, false, err
	}
	length, keep, err := readHeader(c.in)
	if err != nil {
		return nil, false, err
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	body = c.body[:length]
	if _, err := io.ReadFull(c.in, body); err != nil {
		return nil, false, err
	}
	if status != 200 {
		return nil, keep, fmt.Errorf("status %d: %.300s", status, body)
	}
	return body, keep, nil
}

// parseStatus reads "HTTP/1.1 200 OK".
func parseStatus(line []byte) (int, error) {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok || len(rest) < 4 {
		return 0, errors.New("the answer is not HTTP/1.1")
	}
	return strconv.Atoi(string(rest[:3]))
}

// readHeader reads up to the body.
func readHeader(in *bufio.Reader) (length int, keep bool, err error) {
	length, keep = -1, true
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, false, err
			}
		case bytes.EqualFold(name, []byte("Connection")):
			keep = !bytes.EqualFold(value, []byte("close"))
		}
	}
	if length < 0 || length > maxAnswer {
		return 0, false, errors.New("the answer has no usable Content-Length")
	}
	return length, keep, nil
}
