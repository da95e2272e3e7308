package standin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Event is a stored event in the Calendar v3 form, as far as this provider knows it:
// https://developers.google.com/workspace/calendar/api/v3/reference/events
type Event struct {
	Kind        string     `json:"kind"`
	ETag        string     `json:"etag"`
	ID          string     `json:"id"`
	Status      string     `json:"status"`
	HTMLLink    string     `json:"htmlLink"`
	Created     string     `json:"created"`
	Updated     string     `json:"updated"`
	Summary     string     `json:"summary,omitempty"`
	Description string     `json:"description,omitempty"`
	Location    string     `json:"location,omitempty"`
	Creator     Person     `json:"creator"`
	Organizer   Person     `json:"organizer"`
	Start       EventTime  `json:"start"`
	End         EventTime  `json:"end"`
	ICalUID     string     `json:"iCalUID"`
	Sequence    int        `json:"sequence"`
	Attendees   []Attendee `json:"attendees,omitempty"`
	EventType   string     `json:"eventType"`
	// Reminders and ExtendedProperties are kept as they came.
	Reminders          json.RawMessage `json:"reminders,omitempty"`
	ExtendedProperties json.RawMessage `json:"extendedProperties,omitempty"`

	from, to time.Time
}

// Person is an event's creator or organizer.
type Person struct {
	Email string `json:"email"`
	Self  bool   `json:"self"`
}

// Attendee is one invited person. Nobody is written to.
type Attendee struct {
	Email          string `json:"email"`
	DisplayName    string `json:"displayName,omitempty"`
	ResponseStatus string `json:"responseStatus,omitempty"`
	Optional       bool   `json:"optional,omitempty"`
}

// EventTime is an instant (DateTime, RFC 3339, whose offset may be left out if TimeZone says where) or a whole day
// (Date).
type EventTime struct {
	DateTime string `json:"dateTime,omitempty"`
	Date     string `json:"date,omitempty"`
	TimeZone string `json:"timeZone,omitempty"`
}

// parse returns the instant and the normal form. A whole day starts at midnight in the calendar's zone.
func (t EventTime) parse(zone *time.Location) (time.Time, EventTime, error) {
	if (t.DateTime == "") == (t.Date == "") {
		return time.Time{}, t, errors.New("exactly one of dateTime and date is needed")
	}
	in := zone
	if t.TimeZone != "" {
		var err error
		if in, err = time.LoadLocation(t.TimeZone); err != nil || t.TimeZone == "Local" {
			return time.Time{}, t, errors.New("timeZone is not a name of the IANA time zone database")
		}
	}
	if t.Date != "" {
		at, err := time.ParseInLocation(time.DateOnly, t.Date, zone)
		if err != nil {
			return time.Time{}, t, errors.New("date is not of the form yyyy-mm-dd")
		}
		return at, t, nil
	}
	at, err := time.Parse(time.RFC3339, t.DateTime)
	if err != nil && t.TimeZone != "" {
		at, err = time.ParseInLocation("2006-01-02T15:04:05", t.DateTime, in)
	}
	if err != nil {
		return time.Time{}, t, errors.New("dateTime is not of the form of RFC 3339")
	}
	return at, EventTime{DateTime: at.In(in).Format(time.RFC3339), TimeZone: in.String()}, nil
}

// place validates the times and stores their normal form.
func (e *Event) place(zone *time.Location) error {
	var err error
	if e.from, e.Start, err = e.Start.parse(zone); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if e.to, e.End, err = e.End.parse(zone); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	if (e.Start.Date == "") != (e.End.Date == "") {
		return errors.New("start and end must both be dates or both be instants")
	}
	if e.to.Before(e.from) || (e.Start.Date != "" && e.to.Equal(e.from)) {
		return errEmptyRange
	}
	return nil
}

var errEmptyRange = errors.New("the specified time range is empty")

// validEventID follows Google's rule: base32hex, 5 to 1024 characters.
func validEventID(id string) bool {
	return len(id) >= 5 && len(id) <= 1024 && strings.Trim(id, "0123456789abcdefghijklmnopqrstuv") == ""
}

// book is one calendar.
type book struct{ events []Event }

// live returns copies of the events that are not deleted, by start.
func (b *book) live() []Event {
	var out []Event
	for _, e := range b.events {
		if e.Status != "cancelled" {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(x, y Event) int { return cmp.Or(x.from.Compare(y.from), cmp.Compare(x.ID, y.ID)) })
	return out
}

// find returns the event with this id, deleted ones included, or nil.
func (b *book) find(id string) *Event {
	i := slices.IndexFunc(b.events, func(e Event) bool { return e.ID == id })
	if i < 0 {
		return nil
	}
	return &b.events[i]
}
