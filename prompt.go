package tabard

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// obtain asks for a token and, where there is a handler, sees a missing consent through.
func (c *Client) obtain(ctx context.Context, need OAuth2, force bool) (*Token, error) {
	v := valuesOf(ctx)
	handler := c.onConsent
	if v.consentSet {
		handler = v.onConsent
	}
	if handler == nil {
		return c.ask(ctx, need, "", force)
	}
	key := promptKey{v.who.key(), fmt.Sprintf("%+v", need)}
	for {
		if err := c.prompts.wait(ctx, key); err != nil {
			return nil, err
		}
		tok, err := c.ask(ctx, need, "", force)
		required, ok := errors.AsType[*ConsentRequiredError](err)
		if !ok {
			return tok, err
		}
		if p := c.prompts.begin(key); p != nil {
			return c.prompt(ctx, need, handler, required.Consent, p)
		}
	}
}

// prompt shows one consent to the user and waits for it.
func (c *Client) prompt(ctx context.Context, need OAuth2, handler ConsentHandler, consent Consent, p *prompt) (tok *Token, err error) {
	defer func() { c.prompts.end(p, err) }()
	if err := handler(ctx, consent); err != nil {
		return nil, fmt.Errorf("tabard: the consent handler failed: %w", err)
	}
	return c.Wait(ctx, need, consent)
}

// prompts are the consents that calls of this client wait for. Tools that run side by side need the same consent at
// the same time: were each to open its own session, the user would finish one, and the others would wait in vain.
type prompts struct {
	mu   sync.Mutex // guards open
	open map[promptKey]*prompt
}

// promptKey is a user and a declaration; one user's answer is never another's.
type promptKey struct {
	who  cacheKey
	need string
}

type prompt struct {
	key  promptKey
	done chan struct{} // closed when err is set
	err  error         // the user's answer, if it is no; nil also when the one who prompted gave up
}

// wait returns when no consent for key is open: with the user's refusal, or with nil if asking makes sense.
func (p *prompts) wait(ctx context.Context, key promptKey) error {
	p.mu.Lock()
	open := p.open[key]
	p.mu.Unlock()
	if open == nil {
		return nil
	}
	select {
	case <-open.done:
		return open.err
	case <-ctx.Done():
		return fmt.Errorf("tabard: waiting for consent: %w", context.Cause(ctx))
	}
}

// begin returns nil if a consent for key is open already.
func (p *prompts) begin(key promptKey) *prompt {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[key] != nil {
		return nil
	}
	if p.open == nil {
		p.open = map[promptKey]*prompt{}
	}
	mine := &prompt{key: key, done: make(chan struct{})}
	p.open[key] = mine
	return mine
}

// end wakes those who wait. Only a no of the user holds for all; a closed chat or an ended request is the own
// failure of the one who prompted.
func (p *prompts) end(mine *prompt, err error) {
	p.mu.Lock()
	delete(p.open, mine.key)
	p.mu.Unlock()
	if errors.Is(err, ErrConsentFailed) || errors.Is(err, ErrConsentExpired) {
		mine.err = err
	}
	close(mine.done)
}
