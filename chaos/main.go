// Command chaos kills a server again and again while secrets are released, and then holds the answers against the
// trail: each release that a client was given has its audit record, and the trail verifies by every checkpoint that was
// kept outside the database. It ends with 1 and a sentence where that does not hold.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

func main() {
	var c config
	flag.StringVar(&c.tabard, "tabard", "", "`path` of the command to test")
	flag.StringVar(&c.db, "db", "sqlite", "sqlite, or a postgres:// `URL`")
	flag.StringVar(&c.dir, "dir", "", "`directory` for data; it must not exist")
	flag.DurationVar(&c.length, "for", time.Minute, "how long")
	flag.IntVar(&c.clients, "clients", 8, "how many release at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

// config is what a run is told.
type config struct {
	tabard, db, dir string
	length          time.Duration
	clients         int
}

func run(ctx context.Context, c config) error {
	if c.tabard == "" || c.dir == "" {
		return errors.New("give -tabard and -dir")
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return err
	}
	w := &world{config: c, released: map[string]bool{}}
	defer w.kill()
	if err := w.start(ctx); err != nil {
		return err
	}
	if err := w.prepare(ctx); err != nil {
		return err
	}
	deadline := time.Now().Add(c.length)
	for time.Now().Before(deadline) {
		if err := w.round(ctx); err != nil {
			return err
		}
	}
	if len(w.released) == 0 || w.kills == 0 {
		return fmt.Errorf("nothing was tested: %d releases, %d kills", len(w.released), w.kills)
	}
	if err := w.judge(ctx); err != nil {
		return err
	}
	fmt.Printf("%d releases, %d kills, %d checkpoints: each release has its record, and the trail verifies\n", len(w.released), w.kills, w.checkpoints)
	return nil
}
