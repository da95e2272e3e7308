package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// postgresConfig is what the child that keeps PostgreSQL is told.
type postgresConfig struct {
	Dir string `json:"dir"` // empty and ours
}

// servePostgres makes a cluster with PostgreSQL's own defaults (fsync and synchronous_commit are on) and keeps its
// server until ctx ends. TCP reaches only an ordinary role; the superuser is reached by the socket in a private
// directory.
func servePostgres(ctx context.Context, config []byte, ready func(hello) error) (err error) {
	var c postgresConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	attr, err := unprivileged(c.Dir)
	if err != nil {
		return err
	}
	data := filepath.Join(c.Dir, "data")
	command := func(ctx context.Context, name string, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
		cmd.Dir, cmd.Stderr, cmd.SysProcAttr = c.Dir, os.Stderr, attr
		cmd.Stdout = os.Stderr // our own standard output has the one line
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + c.Dir, "LC_ALL=C", "TZ=UTC"}
		return cmd
	}
	if err := command(ctx, "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C").Run(); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	const hba = "local all all trust\nhost all tabard 127.0.0.1/32 trust\n"
	if err := os.WriteFile(filepath.Join(data, "pg_hba.conf"), []byte(hba), 0o600); err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	// Not under ctx, which would kill it: a server that gets SIGINT ends its backends and its own shared memory.
	server := command(context.WithoutCancel(ctx), "postgres", "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", "port="+port, "-c", "unix_socket_directories="+c.Dir)
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Process.Signal(os.Interrupt), server.Wait()) }()
	admin := "host=" + c.Dir + " port=" + port + " user=postgres dbname=postgres sslmode=disable"
	if err := executeSoon(ctx, admin, "CREATE ROLE tabard LOGIN CREATEDB"); err != nil {
		return err
	}
	address := "postgres://tabard@127.0.0.1:" + port + "/postgres?sslmode=disable"
	if err := ready(hello{URL: address, PID: server.Process.Pid}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// executeSoon retries until the server that is starting takes connections.
func executeSoon(ctx context.Context, server, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, childStart/2)
	defer cancel()
	for {
		err := execute(ctx, server, sql)
		if _, connecting := errors.AsType[*pgconn.ConnectError](err); !connecting {
			return err // done, or it never will be
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func execute(ctx context.Context, server, sql string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// database is one of our own on a PostgreSQL server of this machine.
type database struct {
	server string // URL
	name   string
	url    string
	master int // process id of the server, whose whole tree is counted
}

// createDatabase makes an empty database, and finds the server's process: the parent of the backend that we talk to.
func createDatabase(ctx context.Context, server string) (*database, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, errors.New("the PostgreSQL URL cannot be parsed") // the cause quotes it
	}
	d := &database{server: server, name: "tabard_bench_" + strings.ToLower(rand.Text()[:10])}
	u.Path = "/" + d.name
	d.url = u.String()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var backend int
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		return nil, err
	}
	s, err := readStat(backend)
	if err != nil || !strings.HasPrefix(s.name, "postgres") {
		return nil, fmt.Errorf("the PostgreSQL server does not run on this machine, or not in this container: its CPU time cannot be read (process %d: %w)", backend, err)
	}
	d.master = s.parent
	_, err = conn.Exec(ctx, "CREATE DATABASE "+d.name)
	return d, err
}

func (d *database) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), childStop)
	defer cancel()
	return execute(ctx, d.server, "DROP DATABASE "+d.name+" WITH (FORCE)")
}

// postgresBin finds initdb's directory: Debian's, newest version first, then the path.
func postgresBin() (string, error) {
	dirs, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	major := func(bin string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // 0 where it is no number
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return major(b) - major(a) })
	if p, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "initdb")); err == nil {
			return d, nil
		}
	}
	return "", errors.New("no PostgreSQL binaries (initdb): install them, give --postgres-url, or measure --engine sqlite alone")
}

// unprivileged says whom PostgreSQL runs as where we are root, which it refuses, and gives dir to him. It is nil for
// everybody else.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, os.Chown(dir, int(uid), int(gid))
	}
	return nil, errors.New("root may not run PostgreSQL, and there is no user postgres or nobody")
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}
