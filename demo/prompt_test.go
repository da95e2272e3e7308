package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A Monday, at twenty past three in the afternoon.
func monday(t *testing.T) time.Time {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	return time.Date(2026, time.November, 23, 15, 20, 0, 0, zone)
}

func TestUnderstand(t *testing.T) {
	now := monday(t)
	for prompt, want := range map[string]string{
		"lunch with Sam tomorrow at noon for 45 minutes":                 "Lunch with Sam | 2026-11-24 12:00 | 45m0s | 0",
		"Please book a meeting with Ann and Bo on Friday at 9:30 for 1h": "Meeting with Ann and Bo | 2026-11-27 09:30 | 1h0m0s | 0",
		"coffee at 4pm":                                           "Coffee | 2026-11-23 16:00 | 1h0m0s | 2",
		"coffee at 3 pm for half an hour":                         "Coffee | 2026-11-24 15:00 | 30m0s | 1",
		"schedule me a review at 15:30 today":                     "Review | 2026-11-23 15:30 | 1h0m0s | 1",
		"standup next monday at 9 for 15 min":                     "Standup | 2026-11-30 09:00 | 15m0s | 0",
		"dentist on 2026-12-24 at 8.15":                           "Dentist | 2026-12-24 08:15 | 1h0m0s | 1",
		"workshop in 3 days at 10am for 1.5 hours":                "Workshop | 2026-11-26 10:00 | 1h30m0s | 0",
		"gift for Sam the day after tomorrow at noon":             "Gift for Sam | 2026-11-25 12:00 | 1h0m0s | 1",
		"call for 1 hour and 15 minutes tomorrow at 12am, thanks": "Call, thanks | 2026-11-24 00:00 | 1h15m0s | 0",
		"Äpfel kaufen at midnight":                                "Äpfel kaufen | 2026-11-24 00:00 | 1h0m0s | 2",
		"party tonight at 8pm for an hour and a half":             "Party | 2026-11-23 20:00 | 1h30m0s | 0",
		"party tonight at 8pm for one hour and a half":            "Party | 2026-11-23 20:00 | 1h30m0s | 0",
		"lunch tomorrow at noon\x00\nfor 20m":                     "Lunch | 2026-11-24 12:00 | 20m0s | 0",
	} {
		b, err := understand(prompt, now)
		if err != nil {
			t.Errorf("%q: %v", prompt, err)
			continue
		}
		got := strings.Join([]string{b.Summary, b.Start.Format("2006-01-02 15:04"), b.End.Sub(b.Start).String(), string(rune('0' + len(b.Assumed)))}, " | ")
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", prompt, d)
		}
		if b.Start.Location() != now.Location() {
			t.Errorf("%q: the time zone got lost", prompt)
		}
	}
}

func TestUnderstandSaysWhatIsMissing(t *testing.T) {
	now := monday(t)
	for prompt, want := range map[string]string{
		"":                                "at what time",
		"lunch with Sam tomorrow":         "at what time",
		"tomorrow at noon":                "what is it",
		"lunch at 25:00":                  "no time of day",
		"lunch at 13pm":                   "no time of day",
		"lunch at 9:75":                   "no time of day",
		"lunch today at 9":                "has passed",
		"lunch on 2026-13-01 at noon":     "no date",
		"lunch at noon for 0 minutes":     "one minute to a day",
		"lunch at noon for 99 hours":      "one minute to a day",
		strings.Repeat("x", maxPrompt+1):  "longer than",
		"lunch \xff\xfe tomorrow at noon": "longer than",
	} {
		b, err := understand(prompt, now)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v; want an error with %q", prompt, b, err, want)
		}
	}
}

// At the end of March an hour is missing; a meeting after it starts at the time that the clocks then show.
func TestUnderstandAcrossDaylightSaving(t *testing.T) {
	now := monday(t)
	b, err := understand("brunch on 2027-03-28 at 10 for 2 hours", now)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.Start.UTC().Format(time.RFC3339), "2027-03-28T08:00:00Z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWantsReconnect(t *testing.T) {
	for prompt, want := range map[string]bool{
		"reconnect":                                 true,
		"Please reconnect my calendar":              true,
		"connect another calendar":                  true,
		"lunch with Sam tomorrow":                   false,
		"talk about how to reconnect tomorrow at 9": false,
	} {
		if got := wantsReconnect(prompt); got != want {
			t.Errorf("%q: got %v, want %v", prompt, got, want)
		}
	}
}

func FuzzUnderstand(f *testing.F) {
	f.Add("lunch with Sam tomorrow at noon for 45 minutes")
	f.Add("x at 9 for 1.5 hours")
	f.Fuzz(func(t *testing.T, prompt string) {
		now := monday(t)
		b, err := understand(prompt, now)
		if err == nil && (b.Summary == "" || b.Start.Before(now) || !b.End.After(b.Start)) {
			t.Errorf("%q: %+v", prompt, b)
		}
	})
}
