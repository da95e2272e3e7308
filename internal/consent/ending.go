package consent

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/broker"
	"github.com/tabard-id/tabard/internal/fault"
)

// ending is what the page says when a step cannot go on.
type ending struct {
	Title  string
	Text   string
	Next   string // what to do
	Detail string // the provider's cleaned words, shown as such
	Ref    string // correlation id
	status int
}

var errMalformed = errors.New("the request is malformed")

func malformed(msg string) error { return fault.Wrap(fault.Invalid, errMalformed, "%s", msg) }

// words maps each ending to its page. Nothing of the request is shown but the provider's cleaned words.
func words(err error) ending {
	if end, ok := errors.AsType[*broker.EndError](err); ok {
		p := page(end.Ending)
		p.Detail = end.Detail
		return p
	}
	switch fault.CodeOf(err) {
	case fault.Invalid:
		if !errors.Is(err, errMalformed) {
			return ending{Title: "The provider cannot be used", Text: "What the provider publishes about itself, or how it is set up here, does not work.", Next: "Tell the person who runs the agent, with the reference below.", Detail: fault.Public(err).Msg, status: http.StatusBadGateway}
		}
		return ending{Title: "This address is not complete", Text: fault.Public(err).Msg + ".", Next: "Open the link again exactly as your agent gave it to you.", status: http.StatusBadRequest}
	case fault.Denied:
		return ending{Title: "This cannot go on", Text: "The server refused this step.", Next: "Tell the person who runs the agent, with the reference below.", Detail: fault.Public(err).Msg, status: http.StatusForbidden}
	case fault.Unavailable:
		return ending{Title: "Not possible right now", Text: "Something this step needs does not answer.", Next: "Wait a moment, then open the link again.", Detail: fault.Public(err).Msg, status: http.StatusServiceUnavailable}
	}
	return ending{Title: "Something went wrong here", Text: "The fault is on our side, and nothing was stored.", Next: "Try again; if it stays, tell the person who runs the server, with the reference below.", status: http.StatusInternalServerError}
}

func page(e broker.Ending) ending {
	const again = "Go back to your application and ask again: it will give you a new link."
	switch e {
	case broker.EndExpired:
		return ending{Title: "This link has expired", Text: "A consent link lives for ten minutes, and this one is older. Nothing was stored.", Next: again, status: http.StatusGone}
	case broker.EndUsed:
		return ending{Title: "Already done", Text: "Consent was already given with this link. It works only once.", Next: "You can close this page. If your agent still asks, go back to it for a new link.", status: http.StatusConflict}
	case broker.EndDeclined:
		return ending{Title: "You declined", Text: "The provider told us that access was not granted. Nothing was stored.", Next: "You can close this page. If that was a mistake, ask your agent again.", status: http.StatusForbidden}
	case broker.EndOtherBrowser:
		return ending{Title: "Another browser began this", Text: "The provider's answer must come back in the browser that opened the link. Nothing was stored, and the link still works.", Next: "Open the link in the browser in which you are signed in to your application.", status: http.StatusForbidden}
	case broker.EndMixedUp:
		return ending{Title: "The answer came from the wrong place", Text: "What came back is not from the provider that you were sent to. It was not used.", Next: "Go back to your application and ask again. If it happens twice, tell the person who runs the agent.", status: http.StatusForbidden}
	case broker.EndMoved: // 502, so that the log tells the operator from where to where
		return ending{Title: "The provider has moved", Text: "What the provider publishes about itself names another host than before. That may be harmless, and it may be an attack, so you were not sent there. Nothing was stored.", Next: "An administrator must look at this first: tell the person who runs the server, with the reference below. Once the move is accepted, this link works again while it lasts.", status: http.StatusBadGateway}
	case broker.EndWrongUser:
		return ending{Title: "This link is somebody else's", Text: "You are signed in as another user than the one for whom the agent asked. Nothing was stored, and the link has ended.", Next: "If the agent is yours, ask it for a new link and sign in as yourself. If somebody sent you the link, do not open such links.", status: http.StatusForbidden}
	case broker.EndNotSigned:
		return ending{Title: "You are not signed in", Text: "The sign-in did not succeed. Nothing was stored, and the link still works.", Next: "Open the link again and sign in.", status: http.StatusForbidden}
	case broker.EndFailed:
		return ending{Title: "Consent was not completed", Text: "The provider, or the application, ended this before it was complete. Nothing was stored.", Next: again, status: http.StatusForbidden}
	}
	return ending{Title: "We do not know this link", Text: "It may be mistyped, or too old to be remembered.", Next: again, status: http.StatusNotFound}
}

func (h *handler) end(w http.ResponseWriter, r *http.Request, err error) result {
	p := words(err)
	p.Ref = access.RequestID(r.Context())
	var body bytes.Buffer
	if terr := h.pages.ExecuteTemplate(&body, "ending.html", p); terr != nil {
		err, p.status = terr, http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(p.status)
	_, _ = w.Write(body.Bytes())
	return result{status: p.status, code: string(fault.CodeOf(err)), err: err}
}
