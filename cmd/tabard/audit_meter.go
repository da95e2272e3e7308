package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// meter says on a terminal how far a long command has come. Elsewhere it is silent.
type meter struct {
	w     io.Writer
	began time.Time
	last  time.Time
	shown bool
}

// progressAfter is how long a command may take in silence.
const progressAfter = 2 * time.Second

func newMeter(cmd *cobra.Command) *meter {
	p := &meter{began: time.Now()}
	if f, ok := cmd.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.w = f
	}
	return p
}

func (p *meter) say(format string, args ...any) {
	now := time.Now()
	if p.w == nil || now.Sub(p.began) < progressAfter || now.Sub(p.last) < time.Second/4 {
		return
	}
	p.last, p.shown = now, true
	fmt.Fprintf(p.w, "\r\x1b[K%s", oneLine(fmt.Sprintf(format, args...)))
}

func (p *meter) done() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
