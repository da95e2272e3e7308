package api

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Timestamp is a time on the wire: a JSON number of seconds since the epoch, with milliseconds as its fraction. The Go
// and JavaScript SDKs refuse anything else. The zero Timestamp is left out of an answer.
type Timestamp struct{ time.Time }

// At wraps t.
func At(t time.Time) Timestamp { return Timestamp{Time: t} }

// MarshalJSON writes the number of seconds, cut to milliseconds.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	milli := t.UnixMilli()
	b := make([]byte, 0, 16)
	if milli < 0 {
		b, milli = append(b, '-'), -milli
	}
	b = strconv.AppendInt(b, milli/1000, 10)
	if f := milli % 1000; f != 0 {
		b = append(b, '.', byte('0'+f/100), byte('0'+f/10%10), byte('0'+f%10))
	}
	return b, nil
}

// UnmarshalJSON reads a JSON number of seconds, to the millisecond. It refuses what lies outside the years 1 to 9999.
func (t *Timestamp) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	const firstSecond, lastSecond = -62135596800, 253402300799
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || !(f >= firstSecond && f <= lastSecond) {
		return fmt.Errorf("a timestamp is a number of seconds since 1970")
	}
	t.Time = time.UnixMilli(int64(math.Round(f * 1000))).UTC()
	return nil
}
