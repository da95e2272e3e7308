package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// width is what every line fits into, in columns.
const width = 96

// printer writes the story. Colours are for terminals only; the marks say the same without.
type printer struct {
	out     io.Writer
	colours bool
	steps   int
	checks  int
	failed  []string
}

func newPrinter(out io.Writer, getenv func(string) string) *printer {
	p := &printer{out: out}
	if f, ok := out.(*os.File); ok && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" {
		info, err := f.Stat()
		p.colours = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

// The colours, as SGR codes.
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	blue   = "34"
	amber  = "33"
	cyan   = "36"
	indent = "   "
)

func (p *printer) tint(code, text string) string {
	if !p.colours {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p *printer) line(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, format+"\n", args...) // nobody left to tell
}

// step begins a numbered part.
func (p *printer) step(format string, args ...any) {
	p.steps++
	p.line("\n%s", p.tint(bold, fmt.Sprintf("%d. ", p.steps)+fmt.Sprintf(format, args...)))
}

// say writes a paragraph, wrapped.
func (p *printer) say(format string, args ...any) {
	for _, l := range wrap(fmt.Sprintf(format, args...), width-len(indent)) {
		p.line("%s%s", indent, l)
	}
}

// fact writes a labelled value.
func (p *printer) fact(label, format string, args ...any) {
	for i, l := range wrap(fmt.Sprintf(format, args...), width-len(indent)-20) {
		if i > 0 {
			label = ""
		}
		p.line("%s%s%s", indent, p.tint(dim, fmt.Sprintf("%-20s", label)), l)
	}
}

// token writes what may be known of a token.
func (p *printer) token(t tokenView) {
	colour := map[string]string{humanToken: blue, workloadToken: amber, providerToken: cyan}[t.Kind]
	p.line("%s%s  held by the %-8s for %-22s %s", indent, p.tint(colour, fmt.Sprintf("%s %-22s", t.Mark(), t.Name())), t.Holder, t.Audience, p.tint(dim, "#"+t.Fingerprint))
}

// check writes whether something held, and remembers it if not.
func (p *printer) check(ok bool, format string, args ...any) bool {
	p.checks++
	text := fmt.Sprintf(format, args...)
	mark := p.tint(green, "✓")
	if !ok {
		mark = p.tint(red, "✗")
		p.failed = append(p.failed, text)
	}
	for i, l := range wrap(text, width-len(indent)-2) {
		if i > 0 {
			mark = " "
		}
		p.line("%s%s %s", indent, mark, l)
	}
	return ok
}

// verdict sums up; it is true if everything held.
func (p *printer) verdict() bool {
	p.line("")
	if len(p.failed) == 0 {
		p.line("%s", p.tint(green, fmt.Sprintf("All %d checks held.", p.checks)))
		return true
	}
	p.line("%s", p.tint(red, fmt.Sprintf("%d of %d checks did not hold:", len(p.failed), p.checks)))
	for _, f := range p.failed {
		p.line("  ✗ %s", f)
	}
	return false
}

// places says what runs where, and with whose key.
func (p *printer) places(w *world) {
	p.line("%s", p.tint(bold, "Tabard: an agent books a meeting, with three tokens that never mix"))
	p.line("")
	p.fact("Tabard", "%s", w.tabardURL)
	p.fact("identity provider", "%s  stands where Cognito, Okta or Keycloak stand", w.loginURL)
	if w.calendar != nil {
		p.fact("calendar provider", "%s  stands where Google stands", w.calendarURL)
	} else {
		p.fact("calendar provider", "Google itself; register this callback URL there: %s", w.callback)
	}
	p.fact("web app", "%s  key of principal %s, role consent-app", w.webURL, webName)
	p.fact("agent", "%s  key of principal %s, role agent", w.agent.url, agentName)
	p.fact("data", "%s", w.dataDir)
}

// invite says where a person goes from here.
func (p *printer) invite(w *world) {
	p.line("\n%s %s", p.tint(bold, "Your turn:"), p.tint(bold, w.webURL))
	for _, h := range hints(w.calendar == nil) {
		to := "your own Google account"
		if h.Calendar != "" {
			to = h.Calendar + " / " + h.CalendarPassword
		}
		p.line("%s%-7s %s %-22s %s %s", indent, h.Name, p.tint(dim, "login"), h.Login+" / "+h.Password, p.tint(dim, "calendar"), to)
	}
	p.say("Ctrl-C ends everything.")
}

// wrap breaks text into lines of at most most characters, at spaces.
func wrap(text string, most int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > most {
			lines, line = append(lines, line), ""
			if word == "" {
				continue
			}
		}
		if line != "" || len(lines) == 0 && word == "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
