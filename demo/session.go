package main

import (
	"crypto/rand"
	"net/http"
	"sync"
	"time"
)

// sessionLife is how long a login at the web app lasts.
const sessionLife = 8 * time.Hour

// session is one logged-in browser. Whatever the web app knows of a person hangs here and nowhere else: no variable, no
// queue and no cache is shared between two people.
type session struct {
	who   person
	began time.Time

	mu   sync.Mutex // guards task
	task *task      // the latest request, or nil
}

// latest returns the session's request, or nil.
func (s *session) latest() *task {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.task
}

// replace gives up the request under way and puts another in its place.
func (s *session) replace(t *task) {
	s.mu.Lock()
	old := s.task
	s.task = t
	s.mu.Unlock()
	if old != nil {
		old.cancel()
	}
}

// sessions are the logged-in browsers, by the value of their cookie.
type sessions struct {
	cookie string
	now    func() time.Time

	mu   sync.Mutex // guards byID
	byID map[string]*session
}

// begin logs a browser in, under a new id: an id from before the login is worth nothing afterwards.
func (s *sessions) begin(w http.ResponseWriter, who person) {
	id, now := rand.Text(), s.now()
	s.mu.Lock()
	for k, old := range s.byID {
		if now.Sub(old.began) > sessionLife || len(s.byID) >= maxPending {
			delete(s.byID, k)
		}
	}
	s.byID[id] = &session{who: who, began: now}
	s.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: s.cookie, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// of returns the session of the browser that sent r, or nil.
func (s *sessions) of(r *http.Request) *session {
	c, err := r.Cookie(s.cookie)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.byID[c.Value]
	if found == nil || s.now().Sub(found.began) > sessionLife {
		return nil
	}
	return found
}

// end logs the browser out and gives up what it had under way.
func (s *sessions) end(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(s.cookie); err == nil {
		s.mu.Lock()
		old := s.byID[c.Value]
		delete(s.byID, c.Value)
		s.mu.Unlock()
		if old != nil {
			old.replace(nil)
		}
	}
	http.SetCookie(w, &http.Cookie{Name: s.cookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// live returns the session of the person with this email address who logged in last, or nil.
func (s *sessions) live(email string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var last *session
	for _, one := range s.byID {
		if one.who.Email == email && (last == nil || one.began.After(last.began)) {
			last = one
		}
	}
	return last
}
