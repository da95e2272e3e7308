package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// childFlag makes this program one of its own children: `bench --child ROLE`. It is not in the help.
const childFlag = "--child"

// The roles of children.
const (
	roleHello    = "floor-hello"
	roleEcho     = "floor-echo"
	roleServer   = "tabard"
	rolePostgres = "postgres"
)

const (
	childStart = time.Minute      // to the first line; initdb takes some seconds
	childStop  = 30 * time.Second // to a clean end
)

// hello is the one line that a child writes once it serves. It has no secret.
type hello struct {
	Addr  string `json:"addr,omitempty"`  // host:port
	Admin string `json:"admin,omitempty"` // URL of the admin listener
	URL   string `json:"url,omitempty"`   // of the PostgreSQL server
	PID   int    `json:"pid,omitempty"`   // of the postmaster
}

// child is a process that this one started. It ends when its standard input does.
type child struct {
	hello
	role  string
	pid   int
	cmd   *exec.Cmd
	stdin io.Closer
}

// startChild starts this program again as role, gives it config (on its standard input: the server's has a secret) and
// waits until it serves. Its standard error goes to the file log.
func startChild(ctx context.Context, role string, config any, log *os.File) (*child, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, childFlag, role)
	cmd.Stderr = log
	// Its own process group: an interrupt at the terminal reaches it only by us, in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	c := &child{role: role, pid: cmd.Process.Pid, cmd: cmd, stdin: stdin}
	if err := c.greet(ctx, stdin, stdout, config); err != nil {
		_ = c.stop() // what matters is why it did not start
		return nil, fmt.Errorf("%s did not start: %w", role, err)
	}
	return c, nil
}

func (c *child) greet(ctx context.Context, stdin io.Writer, stdout io.Reader, config any) error {
	ctx, cancel := context.WithTimeout(ctx, childStart)
	defer cancel()
	if err := json.NewEncoder(stdin).Encode(config); err != nil {
		return err
	}
	line := make(chan error, 1)
	go func() {
		text, err := bufio.NewReader(stdout).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(text, &c.hello)
		}
		line <- err
	}()
	select {
	case err := <-line:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop ends the child and waits for it.
func (c *child) stop() error {
	_ = c.stdin.Close() // it may be gone already
	done := make(chan error, 1)
	go func() { done <- c.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", c.role, err)
		}
		return nil
	case <-time.After(childStop):
		return errors.Join(fmt.Errorf("%s did not end within %s", c.role, childStop), c.cmd.Process.Kill())
	}
}

// runChild is the whole life of a child. It serves until standard input ends, which it does when the parent dies.
func runChild(ctx context.Context, role string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := bufio.NewReader(in)
	config, err := lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, lines)
	}()
	ready := func(h hello) error { return json.NewEncoder(out).Encode(h) }
	switch role {
	case roleHello, roleEcho:
		return serveFloor(ctx, role, ready)
	case roleServer:
		return serveTabard(ctx, config, ready)
	case rolePostgres:
		return servePostgres(ctx, config, ready)
	}
	return fmt.Errorf("unknown role %q", role)
}
