package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tabard-id/tabard/internal/e2e/peer"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/store"
)

func TestOpenRefusesNothingAndBoth(t *testing.T) {
	url := func() string { return "postgres://127.0.0.1/x" }
	for _, c := range []store.Config{{}, {SQLitePath: filepath.Join(t.TempDir(), "x.db"), PostgresURL: url}} {
		_, err := store.Open(t.Context(), c)
		wantCode(t, "open", err, fault.Invalid)
	}
}

func TestReopen(t *testing.T) {
	engines(t, func(t *testing.T, open opener) {
		db := open(t)
		w := aWorkload(account, "w1", "calendar")
		must(t, db.CreateWorkload(t.Context(), w))
		must(t, db.Close())
		must(t, db.Close())
		wantCode(t, "a write after the end", db.CreateWorkload(t.Context(), aWorkload(account, "w2", "x")), fault.Unavailable)
		again, err := open(t).Workload(t.Context(), account, "calendar")
		must(t, err)
		wantEqual(t, "workload identity", again, w)
	})
}

func TestMigrationsRefuse(t *testing.T) {
	for what, statement := range map[string]string{
		"newer":     "INSERT INTO migrations (number, name, checksum, applied) VALUES (9999, '9999_later.sql', 'x', 0)",
		"different": "UPDATE migrations SET checksum = 'x' WHERE number = 1",
	} {
		t.Run(what, func(t *testing.T) {
			for _, engine := range []string{"sqlite", "postgres"} {
				c := store.Config{SQLitePath: filepath.Join(t.TempDir(), "tabard.db")}
				if engine == "postgres" {
					url := peer.Postgres(t)
					c = store.Config{PostgresURL: func() string { return url }}
				}
				db := open(t, c)
				must(t, db.TestOnlyWrite(t.Context(), func(ctx context.Context, s store.Statements) error { return s.Exec(ctx, statement) }))
				must(t, db.Close())
				_, err := store.Open(t.Context(), c)
				wantCode(t, engine, err, fault.Conflict)
				if err != nil && !strings.Contains(err.Error(), what+" server") {
					t.Errorf("%s: got error %v, want one that names a %s server", engine, err, what)
				}
			}
		})
	}
}

func TestReplicasMigrateTogether(t *testing.T) {
	url := peer.Postgres(t)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			db, err := store.Open(context.Background(), store.Config{PostgresURL: func() string { return url }, MaxConns: 2})
			if err != nil {
				t.Errorf("open: %v", err)
				return
			}
			if err := errors.Join(db.Ping(context.Background()), db.Close()); err != nil {
				t.Errorf("ping and close: %v", err)
			}
		})
	}
	group.Wait()
}

func TestPostgresCommitsAreDurable(t *testing.T) {
	url := peer.Postgres(t)
	for setting, want := range map[string]string{"off": "on", "local": "on", "remote_apply": "remote_apply"} {
		db := open(t, store.Config{PostgresURL: func() string { return url + "&synchronous_commit=" + setting }})
		must(t, db.TestOnlyWrite(t.Context(), func(ctx context.Context, s store.Statements) error {
			text, err := s.Text(ctx, "SELECT current_setting('synchronous_commit')")
			wantEqual(t, "synchronous_commit of a server that says "+setting, text, want)
			return err
		}))
	}
}

// G01: the URL of the database has a password in it.
func TestG01_PostgresURLStaysOutOfErrors(t *testing.T) {
	for url, code := range map[string]fault.Code{
		"postgres://tabard:hunter2@127.0.0.1:1/x?sslmode=disable":     fault.Unavailable,
		"postgres://tabard:hunter2@127.0.0.1:bad/x":                   fault.Invalid,
		"postgres://tabard:hunter2@127.0.0.1/x?sslmode=hunter2&a=%zz": fault.Invalid,
		"host=127.0.0.1 port=1 user=x password=hunter2 sslmode=x":     fault.Invalid,
	} {
		_, err := store.Open(t.Context(), store.Config{PostgresURL: func() string { return url }})
		wantCode(t, "open", err, code)
		if err != nil && strings.Contains(fmt.Sprintf("%v %+v", err, err), "hunter2") {
			t.Errorf("the error has the password: %v", err)
		}
	}
}

func TestPostgresRepeatsADeadlock(t *testing.T) {
	url := peer.Postgres(t)
	db := open(t, store.Config{PostgresURL: func() string { return url }})
	ctx := t.Context()
	must(t, db.CreateWorkload(ctx, aWorkload(account, "a", "a")))
	must(t, db.CreateWorkload(ctx, aWorkload(account, "b", "b")))
	both := make(chan struct{})
	var once, held sync.WaitGroup
	held.Add(2)
	once.Go(func() { held.Wait(); close(both) })
	results := make(chan error, 2)
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		go func() {
			first := true
			results <- db.TestOnlyWrite(context.Background(), func(ctx context.Context, s store.Statements) error {
				for _, uid := range order {
					if err := s.Exec(ctx, "UPDATE workloads SET version = version + 1 WHERE uid = $1", uid); err != nil {
						return err
					}
					if first {
						first = false
						held.Done()
						<-both
					}
				}
				return nil
			})
		}()
	}
	must(t, <-results)
	must(t, <-results)
	for _, uid := range []string{"a", "b"} {
		w, err := db.WorkloadByUID(ctx, account, uid)
		must(t, err)
		wantEqual(t, "version of "+uid, w.Version, int64(3))
	}
}

func TestSQLiteOneServerPerDirectory(t *testing.T) {
	dir := t.TempDir()
	c := store.Config{SQLitePath: filepath.Join(dir, "tabard.db")}
	db := open(t, c)
	_, err := store.Open(t.Context(), c)
	wantCode(t, "second server", err, fault.Conflict)
	if err != nil && !strings.Contains(err.Error(), dir) {
		t.Errorf("got error %v, want one that names %s", err, dir)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSQLiteCrash$")
	cmd.Env = append(os.Environ(), crashEnv+"="+c.SQLitePath)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "another server uses") {
		t.Errorf("second process: got %v and %s, want it refused", err, out)
	}
	must(t, db.Close())
	open(t, c)
}

// D02: what a directory listing says about the files, and a path that looks like settings of the driver.
func TestD02_SQLiteFilesArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a dir?_pragma=x#y%20z")
	db := open(t, store.Config{SQLitePath: filepath.Join(dir, "tabard.db")})
	must(t, db.CreateWorkload(t.Context(), aWorkload(account, "w", "w")))
	files, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", f.Name(), info.Mode())
		}
		names = append(names, f.Name())
	}
	wantEqual(t, "files", names, []string{"lock", "tabard.db", "tabard.db-shm", "tabard.db-wal"})
	info, err := os.Stat(dir)
	must(t, err)
	wantEqual(t, "mode of the directory", info.Mode().Perm(), os.FileMode(0o700))
	must(t, db.TestOnlyWrite(t.Context(), func(ctx context.Context, s store.Statements) error {
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "secure_delete": "1"} {
			text, err := s.Text(ctx, "PRAGMA "+pragma)
			must(t, err)
			wantEqual(t, pragma, text, want)
		}
		return nil
	}))
}

// batch blocks the writer, queues the operations and lets it go on, so that they make one batch. It returns the
// results.
func batch(t *testing.T, db *store.DB, ops ...func(context.Context, store.Statements) error) []error {
	t.Helper()
	running, release := make(chan struct{}), make(chan struct{})
	results := make([]error, len(ops))
	var group sync.WaitGroup
	group.Go(func() {
		_ = db.TestOnlyWrite(context.Background(), func(context.Context, store.Statements) error {
			close(running)
			<-release
			return nil
		})
	})
	<-running
	for i, op := range ops {
		group.Go(func() { results[i] = db.TestOnlyWrite(context.Background(), op) })
		for db.TestOnlyQueued() <= i {
			// The goroutine is on its way.
		}
	}
	close(release)
	group.Wait()
	return results
}

func insertUser(ref string) func(context.Context, store.Statements) error {
	return func(ctx context.Context, s store.Statements) error {
		return s.Exec(ctx, "INSERT INTO users (account, ref, sealed, created) VALUES ($1, $2, $3, 0)", string(account), ref, []byte{1})
	}
}

func users(t *testing.T, db *store.DB) (text string) {
	t.Helper()
	must(t, db.TestOnlyWrite(t.Context(), func(ctx context.Context, s store.Statements) (err error) {
		text, err = s.Text(ctx, "SELECT coalesce(group_concat(ref, ' '), '') FROM (SELECT ref FROM users ORDER BY ref)")
		return err
	}))
	return text
}

func TestSQLiteFailureKeepsToItself(t *testing.T) {
	db := open(t, store.Config{SQLitePath: filepath.Join(t.TempDir(), "tabard.db")})
	results := batch(t, db, insertUser("a"), func(ctx context.Context, s store.Statements) error {
		must(t, insertUser("b")(ctx, s))
		return fault.New(fault.Limit, "no more")
	}, func(ctx context.Context, s store.Statements) error {
		must(t, insertUser("c")(ctx, s))
		return insertUser("a")(ctx, s)
	}, insertUser("d"))
	must(t, errors.Join(results[0], results[3]))
	wantCode(t, "the operation that gave up", results[1], fault.Limit)
	wantCode(t, "the operation that broke a constraint", results[2], fault.Internal)
	wantEqual(t, "users", users(t, db), "a d")
}

func TestSQLiteFailedCommitFailsTheBatch(t *testing.T) {
	db := open(t, store.Config{SQLitePath: filepath.Join(t.TempDir(), "tabard.db")})
	results := batch(t, db, insertUser("a"), func(ctx context.Context, s store.Statements) error {
		must(t, s.Exec(ctx, "PRAGMA defer_foreign_keys = 1")) // what is broken shows at the commit
		return s.Exec(ctx, "INSERT INTO access_keys (id, account, principal, secret, disabled, version, created) VALUES ('k', '1', 'nobody', x'', 0, 1, 0)")
	}, func(context.Context, store.Statements) error {
		return fault.New(fault.Conflict, "because of what the first wrote")
	})
	for i, err := range results {
		wantCode(t, fmt.Sprint("operation ", i), err, fault.Unavailable)
	}
	wantEqual(t, "users", users(t, db), "")
	must(t, db.TestOnlyWrite(t.Context(), insertUser("b")))
	wantEqual(t, "users after the next write", users(t, db), "b")
}

func TestSQLiteDropsWhatNobodyWaitsFor(t *testing.T) {
	db := open(t, store.Config{SQLitePath: filepath.Join(t.TempDir(), "tabard.db")})
	running, release, dropped := make(chan struct{}), make(chan struct{}), make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan error)
	go func() {
		started <- db.TestOnlyWrite(ctx, func(ctx context.Context, s store.Statements) error {
			close(running)
			<-release
			return insertUser("started")(ctx, s)
		})
	}()
	<-running
	go func() { dropped <- db.TestOnlyWrite(ctx, insertUser("dropped")) }()
	for db.TestOnlyQueued() == 0 {
		// The goroutine is on its way.
	}
	cancel()
	wantCode(t, "an operation that waited", <-dropped, fault.Unavailable)
	close(release)
	must(t, <-started)
	wantEqual(t, "users", users(t, db), "started")
}

const crashEnv = "TABARD_STORE_CRASH_TEST"

// A process that is killed has on disk every write that it answered.
func TestSQLiteCrash(t *testing.T) {
	if path := os.Getenv(crashEnv); path != "" { // the process that dies
		db := open(t, store.Config{SQLitePath: path})
		for i := range 100_000 {
			go func() {
				if db.CreateWorkload(context.Background(), aWorkload(account, fmt.Sprint("w", i), fmt.Sprint("w", i))) == nil {
					fmt.Printf("w%d\n", i)
				}
			}()
		}
		<-time.After(time.Minute) // long before, it is killed
		return
	}
	path := filepath.Join(t.TempDir(), "tabard.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSQLiteCrash$")
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var answered []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		answered = append(answered, lines.Text())
		if len(answered) == 500 {
			must(t, cmd.Process.Kill())
		}
	}
	if cmd.Wait() == nil || len(answered) < 500 {
		t.Fatalf("the process ended by itself after %d writes", len(answered))
	}
	db := open(t, store.Config{SQLitePath: path})
	for _, name := range answered[:len(answered)-1] { // the last line may be cut
		if _, err := db.Workload(t.Context(), account, name); err != nil {
			t.Errorf("%s was answered and is lost: %v", name, err)
		}
	}
}
