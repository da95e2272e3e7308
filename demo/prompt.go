package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// booking is what the agent understood. A model would fill this in; here a few rules do, so that the demo runs anywhere
// and always alike.
type booking struct {
	Summary    string
	Start, End time.Time
	// Assumed says what the prompt left open and how it was filled.
	Assumed []string
}

// maxPrompt bounds a prompt, in bytes.
const maxPrompt = 500

var (
	reconnectWords = regexp.MustCompile(`(?i)^\s*(please\s+)?(reconnect|connect (another|a different)) `)
	leadWords      = regexp.MustCompile(`(?i)^(please|can you|could you|book|schedule|plan|arrange|add|put|set up|make|create|me|us|an?|the)\s+`)
	dayWords       = regexp.MustCompile(`(?i)\b(?:on\s+)?(today|tonight|the day after tomorrow|tomorrow|in (\d{1,3}) days?|(\d{4}-\d{2}-\d{2})|(?:this |next )?(monday|tuesday|wednesday|thursday|friday|saturday|sunday))\b`)
	timeWords      = regexp.MustCompile(`(?i)\bat\s+(noon|midday|midnight|(\d{1,2})(?:[:.](\d{2}))?(?:\s*(am|pm|a\.m\.|p\.m\.))?(?:\s*o'?clock)?)(?:[\s,.!?]|$)`)
	halfHour       = regexp.MustCompile(`(?i)\bfor\s+(half an hour|(?:an|one) hour and a half|an hour)\b`)
	lengthWords    = regexp.MustCompile(`(?i)\bfor\s+(?:(\d{1,2}(?:\.\d{1,2})?)\s*(?:hours?|hrs?|h)\b)?(?:\s*(?:and\s+)?(\d{1,3})\s*(?:minutes?|mins?|m)\b)?`)
	spaces         = regexp.MustCompile(`\s+`)
)

// wantsReconnect reports whether the person asks to connect a calendar anew.
func wantsReconnect(prompt string) bool { return reconnectWords.MatchString(prompt + " ") }

// understand reads a prompt such as "lunch with Sam tomorrow at noon for 45 minutes". Words are of English; now has the
// time zone of the times in it. The error tells a person what is missing.
func understand(prompt string, now time.Time) (booking, error) {
	if len(prompt) > maxPrompt || !utf8.ValidString(prompt) {
		return booking{}, fmt.Errorf("the request is longer than %d characters, or no text", maxPrompt)
	}
	rest := " " + strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, prompt) + " "
	var b booking
	length, rest, err := takeLength(rest, &b)
	if err != nil {
		return booking{}, err
	}
	hour, minute, rest, err := takeTime(rest)
	if err != nil {
		return booking{}, err
	}
	day, named, rest, err := takeDay(rest, now)
	if err != nil {
		return booking{}, err
	}
	b.Start = time.Date(day.Year(), day.Month(), day.Day(), hour, minute, 0, 0, now.Location())
	if !named {
		b.Assumed = append(b.Assumed, "no day was named: today")
		if !b.Start.After(now) {
			b.Start = b.Start.AddDate(0, 0, 1)
			b.Assumed[len(b.Assumed)-1] = "no day was named, and that time has passed today: tomorrow"
		}
	}
	if b.Start.Before(now) {
		return booking{}, fmt.Errorf("%s has passed", b.Start.Format("Monday 2 January 15:04"))
	}
	b.End = b.Start.Add(length)
	if b.Summary = summary(rest); b.Summary == "" {
		return booking{}, errors.New(`what is it? Begin with that, as in "lunch with Sam tomorrow at noon"`)
	}
	return b, nil
}

// takeLength finds how long it lasts and cuts that out. One hour where nothing is said.
func takeLength(text string, b *booking) (time.Duration, string, error) {
	if m := halfHour.FindStringSubmatchIndex(text); m != nil {
		length := time.Hour
		switch what := strings.ToLower(text[m[2]:m[3]]); {
		case strings.HasPrefix(what, "half"):
			length = 30 * time.Minute
		case strings.HasSuffix(what, "half"):
			length = 90 * time.Minute
		}
		return length, text[:m[0]] + " " + text[m[1]:], nil
	}
	for _, m := range lengthWords.FindAllStringSubmatchIndex(text, -1) {
		if m[2] < 0 && m[4] < 0 {
			continue // "for Sam"
		}
		var length time.Duration
		if m[2] >= 0 {
			hours, err := strconv.ParseFloat(text[m[2]:m[3]], 64)
			if err != nil {
				return 0, "", err
			}
			length = time.Duration(hours * float64(time.Hour)).Round(time.Minute)
		}
		if m[4] >= 0 {
			minutes, err := strconv.Atoi(text[m[4]:m[5]])
			if err != nil {
				return 0, "", err
			}
			length += time.Duration(minutes) * time.Minute
		}
		if length <= 0 || length > 24*time.Hour {
			return 0, "", errors.New("it can last from one minute to a day")
		}
		return length, text[:m[0]] + " " + text[m[1]:], nil
	}
	b.Assumed = append(b.Assumed, "no length was named: one hour")
	return time.Hour, text, nil
}

// takeTime finds the time of day and cuts it out.
func takeTime(text string) (hour, minute int, rest string, err error) {
	m := timeWords.FindStringSubmatchIndex(text)
	if m == nil {
		return 0, 0, "", errors.New(`at what time? Say for instance "at noon", "at 3pm" or "at 15:30"`)
	}
	rest = text[:m[0]] + " " + text[m[3]:]
	switch strings.ToLower(text[m[2]:m[3]]) {
	case "noon", "midday":
		return 12, 0, rest, nil
	case "midnight":
		return 0, 0, rest, nil
	}
	if hour, err = strconv.Atoi(text[m[4]:m[5]]); err != nil {
		return 0, 0, "", err
	}
	if m[6] >= 0 {
		if minute, err = strconv.Atoi(text[m[6]:m[7]]); err != nil {
			return 0, 0, "", err
		}
	}
	wrong := fmt.Errorf("%q is no time of day", strings.TrimSpace(text[m[2]:m[3]]))
	if m[8] >= 0 {
		if hour < 1 || hour > 12 {
			return 0, 0, "", wrong
		}
		hour %= 12
		if strings.EqualFold(text[m[8]:m[8]+1], "p") {
			hour += 12
		}
	}
	if hour > 23 || minute > 59 {
		return 0, 0, "", wrong
	}
	return hour, minute, rest, nil
}

// takeDay finds the day and cuts it out; named is false, and the day today, where there is none.
func takeDay(text string, now time.Time) (day time.Time, named bool, rest string, err error) {
	m := dayWords.FindStringSubmatchIndex(text)
	if m == nil {
		return now, false, text, nil
	}
	rest = text[:m[0]] + " " + text[m[1]:]
	what := strings.ToLower(text[m[2]:m[3]])
	switch {
	case m[4] >= 0:
		days, err := strconv.Atoi(text[m[4]:m[5]])
		return now.AddDate(0, 0, days), true, rest, err
	case m[6] >= 0:
		day, err := time.ParseInLocation(time.DateOnly, what, now.Location())
		if err != nil {
			return now, true, "", fmt.Errorf("%q is no date", what)
		}
		return day, true, rest, nil
	case m[8] >= 0:
		day := now.AddDate(0, 0, 1)
		for !strings.EqualFold(day.Weekday().String(), text[m[8]:m[9]]) {
			day = day.AddDate(0, 0, 1)
		}
		return day, true, rest, nil
	case what == "tomorrow":
		return now.AddDate(0, 0, 1), true, rest, nil
	case strings.HasPrefix(what, "the day after"):
		return now.AddDate(0, 0, 2), true, rest, nil
	}
	return now, true, rest, nil
}

// summary makes a title of what is left: "book a lunch with Sam" is "Lunch with Sam".
func summary(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(spaces.ReplaceAllString(text, " ")), " ,", ",")
	text = strings.TrimSpace(strings.Trim(text, " .,;:!?"))
	for text != "" {
		shorter := leadWords.ReplaceAllString(text, "")
		if shorter == text {
			break
		}
		text = shorter
	}
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(first)) + text[size:]
}
