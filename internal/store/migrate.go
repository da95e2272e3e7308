package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
)

// migrations holds one directory per engine. A released file is never edited.
//
//go:embed migrations
var migrations embed.FS

// migration is one numbered file.
type migration struct {
	number   int64
	name     string
	text     string
	checksum string // SHA-256 of text, hexadecimal
}

// migrationLock is the key of PostgreSQL's advisory lock: replicas that start together migrate one after the other. The
// lock ends with the transaction, and nothing on the request path uses one.
const migrationLock = 0x7461626172640001

// migrate brings the schema up to date, in one transaction. It only goes forward.
func migrate(ctx context.Context, conn *sql.Conn, engine Engine) (err error) {
	all, err := known(engine)
	if err != nil {
		return err
	}
	begin := "BEGIN IMMEDIATE"
	if engine == PostgreSQL {
		begin = "BEGIN"
	}
	if _, err := conn.ExecContext(ctx, begin); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
	}()
	if engine == PostgreSQL {
		if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return err
		}
	}
	const table = `CREATE TABLE IF NOT EXISTS migrations (
		number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied BIGINT NOT NULL)`
	if _, err := conn.ExecContext(ctx, table); err != nil {
		return err
	}
	applied, err := applied(ctx, conn)
	if err != nil {
		return err
	}
	if err := compare(all, applied); err != nil {
		return err
	}
	for _, m := range all[len(applied):] {
		if err := apply(ctx, conn, m); err != nil {
			return err
		}
	}
	_, err = conn.ExecContext(ctx, "COMMIT")
	return err
}

// known returns the embedded migrations in order.
func known(engine Engine) ([]migration, error) {
	dir := "migrations/" + string(engine)
	files, err := fs.ReadDir(migrations, dir)
	if err != nil {
		return nil, err
	}
	all := make([]migration, 0, len(files))
	for i, f := range files { // ReadDir sorts by name
		digits, _, _ := strings.Cut(f.Name(), "_")
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n != int64(i)+1 {
			return nil, fault.New(fault.Internal, "migration %s is not number %d", f.Name(), i+1)
		}
		text, err := fs.ReadFile(migrations, dir+"/"+f.Name())
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		all = append(all, migration{number: n, name: f.Name(), text: string(text), checksum: hex.EncodeToString(sum[:])})
	}
	return all, nil
}

func applied(ctx context.Context, conn *sql.Conn) ([]migration, error) {
	rows, err := conn.QueryContext(ctx, "SELECT number, name, checksum FROM migrations ORDER BY number")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []migration
	for rows.Next() {
		var m migration
		if err := rows.Scan(&m.number, &m.name, &m.checksum); err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, rows.Err()
}

// compare refuses a database whose history is not the beginning of ours.
func compare(ours, theirs []migration) error {
	if len(theirs) > len(ours) {
		return fault.New(fault.Conflict, "the database was changed by a newer server: it is at migration %d, and this one knows %d",
			theirs[len(theirs)-1].number, len(ours))
	}
	for i, m := range theirs {
		if m.number != ours[i].number || m.checksum != ours[i].checksum {
			return fault.New(fault.Conflict, "the database was made by a different server: its migration %d (%s) is not ours", m.number, m.name)
		}
	}
	return nil
}

func apply(ctx context.Context, conn *sql.Conn, m migration) error {
	if _, err := conn.ExecContext(ctx, m.text); err != nil {
		return fmt.Errorf("migration %s: %w", m.name, err)
	}
	_, err := conn.ExecContext(ctx, "INSERT INTO migrations (number, name, checksum, applied) VALUES ($1, $2, $3, $4)",
		m.number, m.name, m.checksum, time.Now().UnixMilli())
	return err
}
