package standin

import (
	"net/http"
	"net/url"
	"time"
)

// dayView and eventView are what the calendar page shows.
type dayView struct {
	Name   string
	Events []eventView
}

type eventView struct{ Summary, Place, Text, Start, End, From, To string }

// page shows the signed-in person's calendar, read-only.
func (c *Calendar) page(w http.ResponseWriter, r *http.Request) {
	_, user, in := c.signedIn(r)
	if !in {
		http.Redirect(w, r, pathSignIn+"?continue="+url.QueryEscape(pathCalendar), http.StatusSeeOther)
		return
	}
	c.pages.render(w, http.StatusOK, "calendar", struct {
		Title, Zone, Form string
		User              User
		Days              []dayView
	}{"Calendar of " + user.FullName, c.config.Zone.String(), c.forms.token(w, r), user, c.days(user.Name)})
}

func (c *Calendar) days(user string) []dayView {
	var days []dayView
	for _, e := range c.Events(user) {
		from, to := e.from.In(c.config.Zone), e.to.In(c.config.Zone)
		v := eventView{Summary: e.Summary, Place: e.Location, Text: e.Description}
		if v.Summary == "" {
			v.Summary = "(no title)"
		}
		if e.Start.Date == "" {
			v.Start, v.End = from.Format(time.RFC3339), to.Format(time.RFC3339)
			v.From, v.To = from.Format("15:04"), to.Format("15:04")
			if from.YearDay() != to.YearDay() || from.Year() != to.Year() {
				v.To = to.Format("Monday 2 January 15:04")
			}
		}
		name := from.Format("Monday 2 January 2006")
		if len(days) == 0 || days[len(days)-1].Name != name {
			days = append(days, dayView{Name: name})
		}
		last := &days[len(days)-1]
		last.Events = append(last.Events, v)
	}
	return days
}
