package tabard

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/aws/smithy-go/middleware"

	"github.com/tabard-id/tabard/internal/secret"
)

const (
	// maxWATs bounds the cache: that many users are served without a second mint.
	maxWATs = 1024
	// watSkew is how long before its end a workload access token is no longer used.
	watSkew = time.Minute
	// watUnknown is how long one is used whose end the service does not tell (AWS). Its SDKs poll ten minutes with
	// one token, so half of that is safe.
	watUnknown = 5 * time.Minute
)

// as runs call with a workload access token for who, and once more with a new one when a cached one turns out to be no
// longer good (expired early, revoked, keys rotated).
func (c *Client) as(ctx context.Context, who identity, call func(wat secret.Text) error) error {
	if who.kind == byWAT {
		return call(who.value)
	}
	if c.workload == "" {
		return invalid("Config.Workload is empty: a workload access token can be minted only for a named workload")
	}
	wat, cached, err := c.wats.get(ctx, who.key(), c.now, func() (secret.Text, time.Time, error) { return c.mint(ctx, who) })
	if err != nil {
		return err
	}
	err = call(wat)
	if !cached || !errors.Is(err, ErrUnauthenticated) {
		return err
	}
	c.wats.drop(who.key(), wat)
	wat, _, err = c.wats.get(ctx, who.key(), c.now, func() (secret.Text, time.Time, error) { return c.mint(ctx, who) })
	if err != nil {
		return err
	}
	return call(wat)
}

// mint asks for a workload access token and says until when it may be used.
func (c *Client) mint(ctx context.Context, who identity) (secret.Text, time.Time, error) {
	var (
		op   string
		err  error
		wat  *string
		meta middleware.Metadata
	)
	name := aws.String(c.workload)
	switch who.kind {
	case byDelegation:
		return c.mintDelegated(ctx, who.value)
	case byUserToken:
		op = "GetWorkloadAccessTokenForJWT"
		var out *bedrockagentcore.GetWorkloadAccessTokenForJWTOutput
		out, err = c.api.GetWorkloadAccessTokenForJWT(ctx, &bedrockagentcore.GetWorkloadAccessTokenForJWTInput{
			WorkloadName: name, UserToken: aws.String(who.value.Expose())}, quiet)
		if err == nil {
			wat, meta = out.WorkloadAccessToken, out.ResultMetadata
		}
	case byUserID:
		op = "GetWorkloadAccessTokenForUserId"
		var out *bedrockagentcore.GetWorkloadAccessTokenForUserIdOutput
		out, err = c.api.GetWorkloadAccessTokenForUserId(ctx, &bedrockagentcore.GetWorkloadAccessTokenForUserIdInput{
			WorkloadName: name, UserId: aws.String(who.value.Expose())}, quiet)
		if err == nil {
			wat, meta = out.WorkloadAccessToken, out.ResultMetadata
		}
	default:
		op = "GetWorkloadAccessToken"
		var out *bedrockagentcore.GetWorkloadAccessTokenOutput
		out, err = c.api.GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{
			WorkloadName: name}, quiet)
		if err == nil {
			wat, meta = out.WorkloadAccessToken, out.ResultMetadata
		}
	}
	if err != nil {
		return secret.Text{}, time.Time{}, failure(ctx, op, err)
	}
	if aws.ToString(wat) == "" {
		return secret.Text{}, time.Time{}, &Error{Code: ErrInternal, Op: op, Message: "the answer has no workload access token"}
	}
	if end := extrasOf(meta).expiry; !end.IsZero() {
		return secret.New(*wat), end.Add(-watSkew), nil
	}
	return secret.New(*wat), c.now().Add(watUnknown), nil
}

// watCache holds the workload access tokens that this process minted, least recently used first out. Callers that
// need the same one at the same time share one mint.
type watCache struct {
	most int

	mu    sync.Mutex // guards all below
	items map[cacheKey]*list.Element
	order *list.List // of *watItem, most recently used in front
}

type watItem struct {
	key   cacheKey
	done  chan struct{} // closed when the rest is set
	wat   secret.Text
	until time.Time
	err   error
	quit  bool // the mint ended because its own context did
}

func newWATCache(most int) *watCache {
	return &watCache{most: most, items: map[cacheKey]*list.Element{}, order: list.New()}
}

// get returns the token for key; cached tells that it was there before the call.
func (w *watCache) get(ctx context.Context, key cacheKey, now func() time.Time,
	mint func() (secret.Text, time.Time, error)) (wat secret.Text, cached bool, err error) {
	for {
		item, mine := w.claim(key)
		if mine {
			w.fill(ctx, item, mint)
			return item.wat, false, item.err
		}
		select {
		case <-item.done:
		case <-ctx.Done():
			return secret.Text{}, false, context.Cause(ctx)
		}
		switch {
		case item.quit:
			w.remove(item) // the one who minted gave up; that is not our failure
			continue
		case item.err != nil:
			return secret.Text{}, false, item.err
		case now().Before(item.until):
			return item.wat, true, nil
		}
		w.remove(item)
	}
}

// fill mints for item and wakes those who wait for it, whatever happens.
func (w *watCache) fill(ctx context.Context, item *watItem, mint func() (secret.Text, time.Time, error)) {
	defer close(item.done)
	item.quit = true // holds if mint panics
	item.wat, item.until, item.err = mint()
	item.quit = item.err != nil && ctx.Err() != nil
	if item.err != nil {
		w.remove(item)
	}
}

// claim returns the item of key, and whether the caller has to fill it.
func (w *watCache) claim(key cacheKey) (item *watItem, mine bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e, ok := w.items[key]; ok {
		w.order.MoveToFront(e)
		return e.Value.(*watItem), false
	}
	item = &watItem{key: key, done: make(chan struct{})}
	w.items[key] = w.order.PushFront(item)
	if last := w.order.Back(); w.order.Len() > w.most {
		w.order.Remove(last)
		delete(w.items, last.Value.(*watItem).key)
	}
	return item, true
}

// remove forgets item, unless another took its place already.
func (w *watCache) remove(item *watItem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e, ok := w.items[item.key]; ok && e.Value.(*watItem) == item {
		w.order.Remove(e)
		delete(w.items, item.key)
	}
}

// drop forgets key if it still holds wat.
func (w *watCache) drop(key cacheKey, wat secret.Text) {
	w.mu.Lock()
	e, ok := w.items[key]
	w.mu.Unlock()
	if !ok {
		return
	}
	item := e.Value.(*watItem)
	select {
	case <-item.done:
		if item.wat.Equal(wat) {
			w.remove(item)
		}
	default: // somebody is minting a new one already
	}
}
