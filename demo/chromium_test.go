package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// pictures is where screenshots go: TABARD_SCREENSHOTS, or the test's artifacts.
func pictures(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("TABARD_SCREENSHOTS")
	if dir == "" {
		return t.ArtifactDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// tab is one person's Chromium: own profile, own cookies, no script anywhere on the way.
type tab struct {
	t            *testing.T
	ctx          context.Context
	dir          string
	name, scheme string
}

// newTab starts Chromium in a colour scheme.
func newTab(t *testing.T, name, scheme string) *tab {
	t.Helper()
	binary := peer.Chromium(t)
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	t.Cleanup(cancel)
	preferred := map[string]string{"dark": "preferredColorScheme=0", "light": "preferredColorScheme=1"}[scheme]
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(binary), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.NoFirstRun,
		chromedp.Flag("blink-settings", preferred))
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until Chromium has ended, so that its profile can be removed
		cancel()
	})
	return &tab{t: t, ctx: ctx, dir: pictures(t), name: name, scheme: scheme}
}

func (b *tab) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		at, _ := chromedp.Run(b.ctx, chromedp.Location())
		text, _ := chromedp.Run(b.ctx, chromedp.Text("body"))
		b.t.Fatalf("%s: %s: %v\nat %s\n%.800s", b.name, what, err, at, text)
	}
}

// ask returns what an action finds out.
func ask[T any](b *tab, what string, a chromedp.Action[T]) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, a)
	if err != nil {
		b.t.Fatalf("%s: %s: %v", b.name, what, err)
	}
	return v
}

// shoot takes a picture of the whole page.
func (b *tab) shoot(what string) {
	b.t.Helper()
	png := ask(b, "picture of "+what, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(b.dir, b.name+"-"+what+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// fits fails the test if the page is wider than the window.
func (b *tab) fits(what string) {
	b.t.Helper()
	over := ask(b, "width of "+what, chromedp.Evaluate[int](`document.documentElement.scrollWidth - document.documentElement.clientWidth`))
	if over > 0 {
		b.t.Errorf("%s: %s is %d pixels wider than the window", b.name, what, over)
	}
}

// TestChromium walks through the web app in a real browser, with keyboard input: as Alice in the light colour scheme,
// and as Bob in the dark one.
func TestChromium(t *testing.T) {
	peer.Chromium(t)
	w := newTestWorld(t)
	alice, bob := actors(w)
	for who, scheme := range map[*actor]string{alice: "light", bob: "dark"} {
		t.Run(who.atWork.Name, func(t *testing.T) {
			b := newTab(t, who.atWork.Name, scheme)
			b.walk(w, who)
			if n := len(w.calendar.Events(who.calendar.Name)); n != 1 {
				t.Errorf("%d events in the calendar, want 1", n)
			}
		})
	}
}

func (b *tab) walk(w *world, who *actor) {
	b.t.Helper()
	b.do("front page", chromedp.EmulateViewport(1280, 900), chromedp.Navigate(w.webURL), chromedp.WaitVisible(chromedp.CSS(`a[href="/login"]`)))
	b.shoot("1-start")
	b.do("login page", chromedp.Click(chromedp.CSS(`a[href="/login"]`)), chromedp.WaitVisible(chromedp.CSS("#password")))
	b.shoot("2-login")
	b.do("login", chromedp.SendKeys(chromedp.CSS("#username"), who.atWork.Name), chromedp.SendKeys(chromedp.CSS("#password"), who.atWork.Password.Expose()+"\r"),
		chromedp.WaitVisible(chromedp.CSS("#prompt")))
	b.shoot("3-ask")
	ask(b, "empty field", chromedp.Evaluate[string](`document.getElementById("prompt").value = ""`))
	b.do("asking", chromedp.SendKeys(chromedp.CSS("#prompt"), "lunch with Sam tomorrow at noon for 45 minutes\r"),
		chromedp.WaitVisible(chromedp.CSS("#allow")))
	b.shoot("4-consent")
	b.do("to the calendar", chromedp.Click(chromedp.CSS("#allow")), chromedp.WaitVisible(chromedp.CSS("#password")))
	b.shoot("5-calendar-login")
	b.do("calendar login", chromedp.SendKeys(chromedp.CSS("#username"), who.calendar.Name), chromedp.SendKeys(chromedp.CSS("#password"), who.calendar.Password.Expose()+"\r"),
		chromedp.WaitVisible(chromedp.CSS(`button[value="allow"]`)))
	b.shoot("6-calendar-consent")
	b.do("consent", chromedp.Click(chromedp.CSS(`button[value="allow"]`)), chromedp.WaitVisible(chromedp.CSS("#booked")))
	if dark := ask(b, "colours", chromedp.Evaluate[bool](`matchMedia("(prefers-color-scheme: dark)").matches`)); dark != (b.scheme == "dark") {
		b.t.Errorf("%s: the colour scheme is not %s", b.name, b.scheme)
	}
	at, text := ask(b, "address", chromedp.Location()), ask(b, "text", chromedp.Text("body"))
	if at != w.webURL+"/" {
		b.t.Errorf("%s ended at %s", b.name, at)
	}
	for _, want := range []string{who.atWork.FullName, "Lunch with Sam", "12:00", "What just happened", "audit "} {
		if !strings.Contains(text, want) {
			b.t.Errorf("%s: the page lacks %q:\n%s", b.name, want, text)
		}
	}
	b.fits("the end")
	b.shoot("7-booked")
	for _, size := range []struct {
		name  string
		width int64
	}{{"desktop", 1280}, {"tablet", 980}, {"phone", 360}, {"small", 320}} {
		b.do("another width", chromedp.EmulateViewport(size.width, 900))
		b.fits(size.name)
		b.shoot("8-" + size.name)
	}
	b.do("a consent that nobody asked for", chromedp.Navigate(w.webURL+"/connected?session_id=urn:ietf:params:oauth:request_uri:x&state=y"), chromedp.WaitVisible(chromedp.CSS(`[role="alert"]`)))
	b.shoot("8-refused")
	b.do("calendar", chromedp.Navigate(w.calendar.PageURL()), chromedp.WaitVisible(chromedp.CSS("article")))
	b.shoot("8-calendar")
	b.keyboard(w)
}

// keyboard goes to the log-out button and back out with the keyboard alone, and sees where it is.
func (b *tab) keyboard(w *world) {
	b.t.Helper()
	b.do("reload", chromedp.EmulateViewport(1280, 900), chromedp.Navigate(w.webURL), chromedp.WaitVisible(chromedp.CSS("#prompt")))
	var order []string
	for range 4 {
		b.do("tab", chromedp.KeyEvent("\t"))
		order = append(order, ask(b, "focus", chromedp.Evaluate[string](`document.activeElement.id || document.activeElement.textContent`)))
	}
	if outline := ask(b, "outline", chromedp.Evaluate[string](`getComputedStyle(document.activeElement).outlineStyle`)); outline != "solid" {
		b.t.Errorf("%s: the focused element has outline %q", b.name, outline)
	}
	if got := strings.Join(order, ", "); got != "prompt, Ask the agent, Open the calendar, Log out" {
		b.t.Errorf("%s: the tab key goes to %s", b.name, got)
	}
	b.shoot("9-focus")
	b.do("log out", chromedp.KeyEvent("\r"), chromedp.WaitVisible(chromedp.CSS(`a[href="/login"]`)))
}
