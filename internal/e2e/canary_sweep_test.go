package e2e_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tabard-id/tabard/internal/daemon"
)

// adminPages keeps what the admin listener shows, the goroutines and the heap of a server at work among it.
func (h *hunt) adminPages() {
	for _, path := range []string{
		"/metrics", "/health", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine?debug=1",
		"/debug/pprof/heap?debug=1", "/debug/pprof/heap", "/debug/pprof/allocs", "/debug/pprof/trace?seconds=0.05",
	} {
		r := page(h.t, "GET", h.server.AdminURL()+path)
		if r.status != 200 {
			h.t.Errorf("%s answered %d", path, r.status)
		}
		h.keep("the admin page "+path, r)
		if z, err := gzip.NewReader(strings.NewReader(r.body)); err == nil {
			plain, err := io.ReadAll(z)
			if err != nil {
				h.t.Fatal(err)
			}
			h.saw("the admin page "+path+", unpacked", string(plain))
		}
	}
}

// sweep collects what the server has written: while it runs, and after its end.
func (h *hunt) sweep() {
	h.trail()
	h.adminPages()
	h.files("while the server runs")
	if h.db != daemon.SQLite {
		h.dump()
	}
	h.stop()
	h.files("after the server's end")
	if log := h.logs.String(); strings.Count(log, "\n") < 100 || !strings.Contains(log, "/identities/oauth2/token") {
		h.t.Errorf("the log has only %d lines", strings.Count(log, "\n"))
	}
	h.saw("the log", h.logs.String())
	h.saw("the start-up lines", h.out.String())
}

// trail keeps every audit record. The list itself is an answer like others.
func (h *hunt) trail() {
	cursor, records := "", 0
	for {
		r := h.tell(root(), "ListAuditRecords", map[string]any{"maxResults": 200, "nextToken": cursor})
		var page struct {
			Records   []json.RawMessage `json:"records"`
			NextToken string            `json:"nextToken"`
		}
		if err := json.Unmarshal([]byte(r.body), &page); err != nil {
			h.t.Fatal(err)
		}
		records += len(page.Records)
		if len(page.Records) < 200 { // the reading itself makes records
			break
		}
		cursor = page.NextToken
	}
	if records < 50 {
		h.t.Errorf("only %d audit records were read", records)
	}
}

// files keeps every byte below the data directory and of the audit sink. The two named files may hold what they are
// for.
func (h *hunt) files(when string) {
	found := map[string]bool{}
	keep := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		doc, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		found[name] = true
		switch name {
		case "key":
			h.saw("the file key", string(doc), "server key")
		case "credentials":
			h.saw("the file credentials", string(doc), "root key")
		default:
			h.saw(fmt.Sprintf("the file %s %s", name, when), string(doc))
		}
		h.saw("the name of a file", path)
		return nil
	}
	for _, dir := range []string{h.dataDir, h.kept} {
		if err := filepath.WalkDir(dir, keep); err != nil {
			h.t.Fatal(err)
		}
	}
	if trail, err := os.ReadFile(filepath.Join(h.kept, "trail.jsonl")); err != nil || strings.Count(string(trail), "\n") < 50 || !found["checkpoints"] {
		h.t.Errorf("the sink has only %d lines: %v, %v", strings.Count(string(trail), "\n"), err, found)
	}
	if h.db == daemon.SQLite && !found["tabard.db"] {
		h.t.Errorf("no tabard.db among %v", found)
	}
}

// dump keeps every row of every table, as text (bytea in hexadecimal) and each bytea as its bytes.
func (h *hunt) dump() {
	ctx := h.t.Context()
	conn, err := pgx.Connect(ctx, h.db)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	// Row-level security lets a session see the rows of its account, and those of all where it asks so (store/rls.go).
	if _, err := conn.Exec(ctx, "SELECT set_config('tabard.account', '*', false)"); err != nil {
		h.t.Fatal(err)
	}
	rows, err := conn.Query(ctx, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
	if err != nil {
		h.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 10 {
		h.t.Fatalf("%d tables: %v", len(tables), err)
	}
	filled := 0
	for _, table := range tables {
		name := pgx.Identifier{table}.Sanitize()
		rows, err := conn.Query(ctx, "SELECT t::text, t.* FROM "+name+" t")
		if err != nil {
			h.t.Fatal(err)
		}
		n := 0
		for ; rows.Next(); n++ {
			values, err := rows.Values()
			if err != nil {
				h.t.Fatal(err)
			}
			for _, value := range values {
				if b, ok := value.([]byte); ok {
					value = string(b)
				}
				h.saw("the table "+table, fmt.Sprint(value))
			}
		}
		if err := rows.Err(); err != nil {
			h.t.Fatal(err)
		}
		if n > 0 {
			filled++
		}
	}
	if filled < 20 {
		h.t.Errorf("only %d tables have rows", filled)
	}
}
