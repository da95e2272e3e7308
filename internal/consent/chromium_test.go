package consent_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/tabard-id/tabard/internal/e2e/peer"
)

// TestHostedInChromium walks through hosted consent in a real browser, which holds the redirects after the form against
// the page's policy and its own rules for cookies: by mouse in the light colour scheme, by keyboard on a phone in the
// dark one. TABARD_SCREENSHOTS names a directory for what it saw.
func TestHostedInChromium(t *testing.T) {
	for scheme, size := range map[string][2]int{"light": {1280, 900}, "dark": {360, 740}} {
		t.Run(scheme, func(t *testing.T) {
			h := newHosted(t, false)
			session, address := h.begin("email", "https://www.googleapis.com/auth/calendar.readonly", "calendar.write")
			ctx := chromium(t, scheme)
			do(t, ctx, "the link", chromedp.EmulateViewport(int64(size[0]), int64(size[1])), chromedp.Navigate(address), chromedp.WaitVisible(chromedp.CSS(`button[value="allow"]`)))
			over, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth - document.documentElement.clientWidth`))
			if err != nil || over > 0 {
				t.Errorf("the page is %d pixels wider than the window, %v", over, err)
			}
			picture(t, ctx, scheme+"-consent.png")
			if scheme == "light" {
				do(t, ctx, "allow", chromedp.Click(chromedp.CSS(`button[value="allow"]`)))
			} else {
				do(t, ctx, "allow", chromedp.Focus(chromedp.CSS(`button[value="allow"]`)), chromedp.SendKeys(chromedp.CSS(`button[value="allow"]`), "\r"))
			}
			do(t, ctx, "the end", chromedp.WaitVisible(chromedp.CSS(`main:not(:has(form))`)))
			if title, err := chromedp.Run(ctx, chromedp.Text("h1")); err != nil || title != "Connected" {
				t.Errorf("the browser ended at the page %q, %v", title, err)
			}
			picture(t, ctx, scheme+"-connected.png")
			if token, err := h.poll(session); token == "" || err != nil {
				t.Errorf("the poll got %v", err)
			}
		})
	}
}

func chromium(t *testing.T, scheme string) context.Context {
	t.Helper()
	binary := peer.Chromium(t)
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	t.Cleanup(cancel)
	preferred := map[string]string{"dark": "preferredColorScheme=0", "light": "preferredColorScheme=1"}[scheme]
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(binary), chromedp.UserDataDir(t.TempDir()), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.NoFirstRun, chromedp.Flag("blink-settings", preferred))
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits until Chromium has ended, so that its profile can be removed
		cancel()
	})
	return ctx
}

func do(t *testing.T, ctx context.Context, what string, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, actions...); err != nil {
		at, _ := chromedp.Run(ctx, chromedp.Location())
		text, _ := chromedp.Run(ctx, chromedp.Text("body"))
		t.Fatalf("%s: %v\nat %s\n%.800s", what, err, at, text)
	}
}

func picture(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	dir := os.Getenv("TABARD_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, name), png, 0o644))
}
