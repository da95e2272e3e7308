package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tabard-id/tabard/api"
)

// colour is an SGR code.
type colour string

const (
	plain colour = ""
	bold  colour = "1"
	red   colour = "31"
)

// paint colours s where w is a terminal and nobody asked otherwise (no-color.org).
func paint(w io.Writer, env func(string) string, c colour, s string) string {
	f, ok := w.(*os.File)
	if c == plain || !ok || env("NO_COLOR") != "" || env("TERM") == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// column is one column of a table of T.
type column[T any] struct {
	name string
	text func(T) string
	tint func(T) colour // may be nil
}

// output is the flag --output.
type output struct {
	format string
	env    func(string) string
}

func (o *output) addFlag(cmd *cobra.Command, t terminal) {
	o.env = t.env
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "`format`: table or json")
	complete(cmd, "output", oneOf("table", "json"))
}

func (o *output) check() error {
	if o.format != "table" && o.format != "json" {
		return usage("--output is table or json", "unknown output format %q", oneLine(o.format))
	}
	return nil
}

// show prints items as a table, or as one JSON array in the form of the API.
func show[T any](cmd *cobra.Command, o output, items []T, columns []column[T]) error {
	if o.format == "json" {
		if items == nil {
			items = []T{}
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(items)
	}
	return newTable(cmd.OutOrStdout(), o.env, columns).write(items, true)
}

// table prints rows in columns whose widths only grow, so that rows of a later page line up with those before.
type table[T any] struct {
	w       io.Writer
	env     func(string) string
	columns []column[T]
	widths  []int
}

func newTable[T any](w io.Writer, env func(string) string, columns []column[T]) *table[T] {
	t := &table[T]{w: w, env: env, columns: columns, widths: make([]int, len(columns))}
	for i, c := range columns {
		t.widths[i] = len(c.name)
	}
	return t
}

func (t *table[T]) write(items []T, header bool) error {
	rows := make([][]string, len(items))
	for r, item := range items {
		rows[r] = make([]string, len(t.columns))
		for i, c := range t.columns {
			rows[r][i] = oneLine(c.text(item))
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(rows[r][i]))
		}
	}
	var b strings.Builder
	if header {
		names := make([]string, len(t.columns))
		for i, c := range t.columns {
			names[i] = c.name
		}
		t.line(&b, names, func(int) colour { return bold })
	}
	for r, item := range items {
		t.line(&b, rows[r], func(i int) colour {
			if tint := t.columns[i].tint; tint != nil {
				return tint(item)
			}
			return plain
		})
	}
	_, err := io.WriteString(t.w, b.String())
	return err
}

func (t *table[T]) line(b *strings.Builder, cells []string, tint func(int) colour) {
	for i, cell := range cells {
		pad := ""
		if i < len(cells)-1 {
			pad = strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)+2)
		}
		b.WriteString(paint(t.w, t.env, tint(i), cell) + pad)
	}
	b.WriteByte('\n')
}

// Cells that several tables have.

func list[S ~string](items []S) string {
	if len(items) == 0 {
		return "-"
	}
	parts := make([]string, len(items))
	for i, s := range items {
		parts[i] = string(s)
	}
	return strings.Join(parts, ",")
}

func when(t api.Timestamp) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// say prints one line on standard output.
func say(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), oneLine(fmt.Sprintf(format, args...)))
	return err
}
