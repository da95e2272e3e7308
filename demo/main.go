// Command demo is the calendar walkthrough: an agent books a meeting for a user who logged in and consented, with three
// tokens that never mix. It starts everything on loopback (Tabard, an identity provider, a calendar provider where
// Google would be, a web app, an agent), plays the story and checks it, and then leaves the web app to you.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const usage = `The calendar walkthrough: an agent books a meeting for a user who logged in and consented.

Usage:
  go run ./demo [flags]

Flags:
  --once                        play the story, check it, and end: exit code 0 only if all of it held
  --web-addr ADDR               where the web app listens (default 127.0.0.1:0, a free port)
  --tabard-addr ADDR            where Tabard listens (default 127.0.0.1:0; with Google 127.0.0.1:8180)
  --login-addr ADDR             where the identity provider listens (default 127.0.0.1:0)
  --zone NAME                   time zone of "tomorrow at noon" (default: this machine's)
  --data-dir DIR                keep the data there (default: a temporary directory, removed at the end)
  --google-client-id ID         use the real Google Calendar instead of the stand-in; the client's secret comes from
                                the variable GOOGLE_CLIENT_SECRET or from
  --google-client-secret-file FILE
  --verbose                     Tabard's log on stderr

Examples:
  go run ./demo                 the story, then the web app until ctrl-C
  go run ./demo --once          the story alone
  go run ./demo --web-addr 127.0.0.1:9090 --zone Europe/Paris
  GOOGLE_CLIENT_SECRET=... go run ./demo --google-client-id 1234.apps.googleusercontent.com
`

// settings are the command line.
type settings struct {
	once, verbose                  bool
	webAddr, tabardAddr, loginAddr string
	zone, dataDir                  string
	googleID                       string
	googleSecret                   func() (string, error) // read when it is needed, and kept nowhere
	errOut                         io.Writer
}

func main() {
	signal.Ignore(syscall.SIGPIPE) // under `| head` the data are removed too
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run does everything main does and returns the exit code: 0, 1 where something did not hold, 2 for wrong usage.
func run(ctx context.Context, args []string, getenv func(string) string, out, errOut io.Writer) int {
	s, err := parse(args, getenv)
	if errors.Is(err, flag.ErrHelp) {
		_, _ = io.WriteString(out, usage)
		return 0
	}
	if err != nil {
		_, _ = fmt.Fprintf(errOut, "demo: %v\nhint: go run ./demo --help\n", err)
		return 2
	}
	s.errOut = errOut
	w, err := newWorld(ctx, s)
	if err != nil {
		_, _ = fmt.Fprintf(errOut, "demo: %v\n", err)
		return 1
	}
	code := play(ctx, w, s, newPrinter(out, getenv))
	if err := w.close(); err != nil {
		_, _ = fmt.Fprintf(errOut, "demo: %v\n", err)
		return 1
	}
	return code
}

// play tells the story, and then waits for the person if it may.
func play(ctx context.Context, w *world, s settings, p *printer) int {
	p.places(w)
	if w.calendar != nil {
		story := newStory(w, p)
		story.tell(ctx)
		if ctx.Err() != nil {
			p.line("\nInterrupted.")
			return 1
		}
		if !p.verdict() {
			return 1
		}
	}
	if s.once {
		return 0
	}
	p.invite(w)
	select {
	case <-ctx.Done():
	case <-w.ctx.Done(): // a part has failed; closing says which
		return 1
	}
	p.line("")
	return 0
}

// parse reads the command line. It opens nothing.
func parse(args []string, getenv func(string) string) (settings, error) {
	var s settings
	var secretFile string
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.BoolVar(&s.once, "once", false, "")
	f.BoolVar(&s.verbose, "verbose", false, "")
	f.StringVar(&s.webAddr, "web-addr", "127.0.0.1:0", "")
	f.StringVar(&s.tabardAddr, "tabard-addr", "", "")
	f.StringVar(&s.loginAddr, "login-addr", "127.0.0.1:0", "")
	f.StringVar(&s.zone, "zone", "", "")
	f.StringVar(&s.dataDir, "data-dir", "", "")
	f.StringVar(&s.googleID, "google-client-id", "", "")
	f.StringVar(&secretFile, "google-client-secret-file", "", "")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	for name, addr := range map[string]string{"--web-addr": s.webAddr, "--login-addr": s.loginAddr} {
		if !strings.HasPrefix(addr, "127.0.0.1:") {
			return s, fmt.Errorf("%s %q: the demo listens on 127.0.0.1 only", name, addr)
		}
	}
	if s.tabardAddr == "" {
		s.tabardAddr = "127.0.0.1:0"
		if s.googleID != "" {
			s.tabardAddr = "127.0.0.1:8180" // Google compares the callback URL with the one registered there
		}
	}
	s.googleSecret = func() (string, error) {
		if secretFile == "" {
			return getenv("GOOGLE_CLIENT_SECRET"), nil
		}
		text, err := os.ReadFile(secretFile)
		return strings.TrimSpace(string(text)), err
	}
	switch given := secretFile != "" || getenv("GOOGLE_CLIENT_SECRET") != ""; {
	case s.googleID != "" && !given:
		return s, errors.New("--google-client-id needs the client's secret: GOOGLE_CLIENT_SECRET or --google-client-secret-file")
	case s.googleID == "" && secretFile != "":
		return s, errors.New("--google-client-secret-file needs --google-client-id")
	case s.googleID != "" && s.once:
		return s, errors.New("--once plays the story, which needs the stand-in calendar: leave --google-client-id out")
	}
	return s, nil
}
