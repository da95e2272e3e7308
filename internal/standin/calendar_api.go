package standin

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

// maxEvents bounds the events of one calendar, deleted ones included.
const maxEvents = 10000

// apiError is an error in the form of Google's APIs.
type apiError struct {
	status                  int
	reason, canonical, text string
}

func (e *apiError) write(w http.ResponseWriter) {
	detail := map[string]string{"message": e.text, "domain": "global", "reason": e.reason}
	switch e.status {
	case http.StatusUnauthorized:
		detail["location"], detail["locationType"] = "Authorization", "header"
		w.Header().Set("WWW-Authenticate", `Bearer realm="calendar", error="invalid_token"`) // RFC 6750 §3
	case http.StatusForbidden:
		w.Header().Set("WWW-Authenticate", `Bearer realm="calendar", error="insufficient_scope", scope="`+ScopeCalendarEvents+`"`)
	}
	writeJSON(w, e.status, map[string]any{"error": map[string]any{
		"code": e.status, "message": e.text, "status": e.canonical, "errors": []any{detail}}})
}

func badRequest(reason, text string) *apiError {
	return &apiError{http.StatusBadRequest, reason, "INVALID_ARGUMENT", text}
}

func emptyRange() *apiError {
	return badRequest("timeRangeEmpty", "The specified time range is empty.")
}

func notFound() *apiError {
	return &apiError{http.StatusNotFound, "notFound", "NOT_FOUND", "Not Found"}
}

// apiCall is an authenticated request for one calendar.
type apiCall struct {
	r     *http.Request
	body  []byte
	owner string
	book  *book
}

// noContent is the result of an operation that answers 204.
type noContent struct{}

func (c *Calendar) apiRoutes(mux *http.ServeMux) {
	const events = pathAPI + "calendars/{calendar}/events"
	write := []string{ScopeCalendarEvents, "https://www.googleapis.com/auth/calendar"}
	read := append(slices.Clone(write), "https://www.googleapis.com/auth/calendar.events.readonly", "https://www.googleapis.com/auth/calendar.readonly")
	list := []string{"https://www.googleapis.com/auth/calendar", "https://www.googleapis.com/auth/calendar.readonly"}
	mux.HandleFunc("GET "+events, c.api(read, c.listEvents))
	mux.HandleFunc("POST "+events, c.api(write, c.insertEvent))
	mux.HandleFunc("GET "+events+"/{event}", c.api(read, c.getEvent))
	mux.HandleFunc("DELETE "+events+"/{event}", c.api(write, c.deleteEvent))
	mux.HandleFunc("GET "+pathAPI+"users/me/calendarList", c.api(list, c.listCalendars))
	mux.HandleFunc(pathAPI, func(w http.ResponseWriter, _ *http.Request) { notFound().write(w) })
}

// api runs one operation: body first, then the operation under c.mu, then the answer, so that a slow client holds
// nobody up.
func (c *Calendar) api(scopes []string, op func(apiCall) (any, *apiError)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			badRequest("parseError", "The body could not be read.").write(w)
			return
		}
		c.mu.Lock()
		call, problem := c.admit(r, scopes)
		var out any
		if problem == nil {
			call.body = body
			out, problem = op(call)
		}
		c.mu.Unlock()
		if problem != nil {
			problem.write(w)
		} else if _, ok := out.(noContent); ok {
			w.WriteHeader(http.StatusNoContent)
		} else {
			writeJSON(w, http.StatusOK, out)
		}
	}
}

// admit checks the bearer token and needs c.mu. A token reaches its own user's calendar only; another one is not found,
// as at Google without a share.
func (c *Calendar) admit(r *http.Request, scopes []string) (apiCall, *apiError) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	a, ok := c.grants.access(secret.New(token), c.config.Now())
	if !strings.EqualFold(scheme, "Bearer") || !ok {
		return apiCall{}, &apiError{http.StatusUnauthorized, "authError", "UNAUTHENTICATED",
			"Request had invalid authentication credentials. Expected OAuth 2 access token."}
	}
	if !slices.ContainsFunc(scopes, func(s string) bool { return slices.Contains(a.scopes, s) }) {
		return apiCall{}, &apiError{http.StatusForbidden, "insufficientPermissions", "PERMISSION_DENIED", "Request had insufficient authentication scopes."}
	}
	owner := cmp.Or(a.grant.user, a.grant.client)
	if id := r.PathValue("calendar"); id != "" && id != "primary" && id != owner {
		return apiCall{}, notFound()
	}
	if c.books[owner] == nil {
		c.books[owner] = &book{}
	}
	return apiCall{r: r, owner: owner, book: c.books[owner]}, nil
}

func (c *Calendar) insertEvent(call apiCall) (any, *apiError) {
	var in struct {
		Event
		Start      *EventTime      `json:"start"`
		End        *EventTime      `json:"end"`
		Recurrence json.RawMessage `json:"recurrence"`
	}
	if err := json.Unmarshal(call.body, &in); err != nil {
		return nil, badRequest("parseError", "Parse Error")
	}
	switch {
	case in.Start == nil:
		return nil, badRequest("required", "Missing start time.")
	case in.End == nil:
		return nil, badRequest("required", "Missing end time.")
	case in.Recurrence != nil:
		return nil, badRequest("invalid", "This stand-in has no recurring events.")
	case len(call.book.events) >= maxEvents:
		return nil, &apiError{http.StatusForbidden, "calendarLimitsExceeded", "PERMISSION_DENIED", "Calendar usage limits exceeded."}
	}
	e := in.Event
	e.Start, e.End = *in.Start, *in.End
	if err := e.place(c.config.Zone); errors.Is(err, errEmptyRange) {
		return nil, emptyRange()
	} else if err != nil {
		return nil, badRequest("invalid", "Invalid value for "+err.Error())
	}
	if e.ID == "" {
		e.ID = strings.ToLower(strings.NewReplacer("W", "0", "X", "1", "Y", "8", "Z", "9").Replace(rand.Text())) // base32 to base32hex letters
	} else if !validEventID(e.ID) {
		return nil, badRequest("invalid", "Invalid resource id value.")
	}
	if call.book.find(e.ID) != nil {
		return nil, &apiError{http.StatusConflict, "duplicate", "ALREADY_EXISTS", "The requested identifier already exists."}
	}
	c.stamp(&e, call.owner)
	call.book.events = append(call.book.events, e)
	return e, nil
}

// stamp sets what the server decides.
func (c *Calendar) stamp(e *Event, owner string) {
	now := c.config.Now().UTC()
	e.Kind, e.Status, e.EventType, e.Sequence = "calendar#event", "confirmed", "default", 0
	e.ETag = strconv.Quote(strconv.FormatInt(now.UnixMilli(), 10))
	e.Created, e.Updated = now.Format("2006-01-02T15:04:05.000Z"), now.Format("2006-01-02T15:04:05.000Z")
	e.Creator, e.Organizer = Person{owner, true}, Person{owner, true}
	e.HTMLLink = c.PageURL()
	if e.ICalUID == "" {
		e.ICalUID = e.ID + "@calendar.example"
	}
	for i := range e.Attendees {
		if e.Attendees[i].ResponseStatus == "" {
			e.Attendees[i].ResponseStatus = "needsAction"
		}
	}
}

func (c *Calendar) getEvent(call apiCall) (any, *apiError) {
	e := call.book.find(call.r.PathValue("event"))
	if e == nil {
		return nil, notFound()
	}
	return *e, nil
}

// deleteEvent keeps the event as cancelled, as Google does: a get still finds it, a second delete answers 410.
func (c *Calendar) deleteEvent(call apiCall) (any, *apiError) {
	e := call.book.find(call.r.PathValue("event"))
	if e == nil {
		return nil, notFound()
	}
	if e.Status == "cancelled" {
		return nil, &apiError{http.StatusGone, "deleted", "FAILED_PRECONDITION", "Resource has been deleted"}
	}
	e.Status = "cancelled"
	return noContent{}, nil
}

// listQuery is the parsed query of events.list.
type listQuery struct {
	min, max   time.Time
	text       string
	byUpdated  bool
	size, from int
}

func parseListQuery(r *http.Request) (listQuery, *apiError) {
	q := r.URL.Query()
	out := listQuery{text: strings.ToLower(q.Get("q")), size: 250}
	for name, to := range map[string]*time.Time{"timeMin": &out.min, "timeMax": &out.max} {
		if v := q.Get(name); v != "" {
			t, err := time.Parse(time.RFC3339, v)
			if err != nil {
				return out, badRequest("badRequest", "Bad Request: "+name+" is not of the form of RFC 3339")
			}
			*to = t
		}
	}
	if !out.min.IsZero() && !out.max.IsZero() && !out.min.Before(out.max) {
		return out, emptyRange()
	}
	switch q.Get("orderBy") {
	case "":
	case "updated":
		out.byUpdated = true
	case "startTime":
		if q.Get("singleEvents") != "true" {
			return out, badRequest("badRequest", "The requested ordering is not available for the particular query.")
		}
	default:
		return out, badRequest("invalidParameter", "Invalid value for orderBy")
	}
	if v := q.Get("maxResults"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return out, badRequest("invalidParameter", "Invalid value for maxResults")
		}
		out.size = min(n, 2500)
	}
	if v := q.Get("pageToken"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return out, badRequest("invalidParameter", "Invalid value for pageToken")
		}
		out.from = n
	}
	return out, nil
}

// matches follows Google: timeMin bounds the end, timeMax the start, both exclusively.
func (q listQuery) matches(e Event) bool {
	return (q.min.IsZero() || e.to.After(q.min)) && (q.max.IsZero() || e.from.Before(q.max)) &&
		strings.Contains(strings.ToLower(e.Summary+" "+e.Description+" "+e.Location), q.text)
}

func (c *Calendar) listEvents(call apiCall) (any, *apiError) {
	q, problem := parseListQuery(call.r)
	if problem != nil {
		return nil, problem
	}
	items := slices.DeleteFunc(call.book.live(), func(e Event) bool { return !q.matches(e) })
	if q.byUpdated {
		slices.SortStableFunc(items, func(x, y Event) int { return strings.Compare(x.Updated, y.Updated) })
	}
	out := map[string]any{"kind": "calendar#events", "etag": `"0"`, "summary": call.owner, "timeZone": c.config.Zone.String(),
		"updated": c.config.Now().UTC().Format(time.RFC3339), "accessRole": "owner", "defaultReminders": []any{}}
	items = items[min(q.from, len(items)):]
	if len(items) > q.size {
		items = items[:q.size]
		out["nextPageToken"] = strconv.Itoa(q.from + q.size)
	}
	out["items"] = append([]Event{}, items...) // never null
	return out, nil
}

func (c *Calendar) listCalendars(call apiCall) (any, *apiError) {
	return map[string]any{"kind": "calendar#calendarList", "etag": `"0"`, "items": []any{map[string]any{
		"kind": "calendar#calendarListEntry", "etag": `"0"`, "id": call.owner, "summary": call.owner,
		"timeZone": c.config.Zone.String(), "accessRole": "owner", "primary": true, "selected": true}}}, nil
}
