package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/tabard-id/tabard"
)

// taskLife bounds a request to the agent: a consent session lives ten minutes.
const taskLife = 11 * time.Minute

// task is one request of a person to the agent, and what the agent has answered so far.
type task struct {
	prompt string
	state  string // unguessable; the browser brings it back from a consent
	mark   string // where the audit trail stood when it began
	cancel context.CancelFunc
	moved  chan struct{} // closed when there is a link to consent or it is done
	done   chan struct{} // closed when the agent has answered

	mu        sync.Mutex // guards the rest
	heard     progress
	completed bool // the consent was confirmed
}

// progress is the agent's answer so far.
type progress struct {
	Understood *understanding
	Consent    *consentNews
	Booked     *booked
	Failed     *failure
	Tokens     []tokenView
	Requests   []string
}

func newTask(prompt, mark string) *task {
	return &task{prompt: prompt, state: rand.Text(), mark: mark, cancel: func() {}, moved: make(chan struct{}), done: make(chan struct{})}
}

// progress returns a copy of the answer so far.
func (t *task) progress() (heard progress, completed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heard, t.completed
}

// began reports whether state is the one that this task gave out.
func (t *task) began(state string) bool {
	return t != nil && subtle.ConstantTimeCompare([]byte(t.state), []byte(state)) == 1
}

func (t *task) complete() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.completed = true
}

// run asks the agent in the person's name and listens until it has finished. The human token is in the Authorization
// header, where every agent runtime has it; the return URL in the header that AgentCore Runtime uses.
func (t *task) run(ctx context.Context, client *http.Client, agent, returnURL, human string) {
	defer close(t.done)
	if f := t.listen(ctx, client, agent, returnURL, human); f != nil {
		t.hear(news{Failed: f})
	}
	t.settle()
}

func (t *task) listen(ctx context.Context, client *http.Client, agent, returnURL, human string) *failure {
	unreachable := &failure{"agent", "the agent cannot be reached"}
	body, err := json.Marshal(invocation{Prompt: t.prompt, State: t.state})
	if err != nil {
		return unreachable
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, agent+"/invocations", bytes.NewReader(body))
	if err != nil {
		return unreachable
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+human)
	req.Header.Set(tabard.HeaderReturnURL, returnURL)
	resp, err := client.Do(req)
	if err != nil {
		return unreachable
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return &failure{"agent", "the agent refused the request"}
	}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, 1<<20))
	for lines.Scan() {
		var n news
		if err := json.Unmarshal(lines.Bytes(), &n); err != nil {
			return &failure{"agent", "the agent's answer cannot be read"}
		}
		t.hear(n)
	}
	if heard, _ := t.progress(); heard.Booked == nil && heard.Failed == nil {
		return &failure{"agent", "the agent fell silent"}
	}
	return nil
}

// hear takes in one line.
func (t *task) hear(n news) {
	t.mu.Lock()
	h := &t.heard
	if n.Understood != nil {
		h.Understood = n.Understood
	}
	if n.Consent != nil {
		h.Consent = n.Consent
	}
	if n.Booked != nil {
		h.Booked = n.Booked
	}
	if n.Failed != nil {
		h.Failed = n.Failed
	}
	if n.Tokens != nil {
		h.Tokens = n.Tokens
	}
	if n.Requests != nil {
		h.Requests = n.Requests
	}
	t.mu.Unlock()
	if n.Consent != nil {
		t.settle()
	}
}

// settle says that the person has something to look at.
func (t *task) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.moved:
	default:
		close(t.moved)
	}
}

// wait returns when c is closed, after at most the given time, or when ctx ends.
func wait(ctx context.Context, c <-chan struct{}, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	case <-ctx.Done():
	}
}
