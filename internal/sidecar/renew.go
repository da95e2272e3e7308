package sidecar

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

// tokenMember is what an operation's request has the workload access token in.
const tokenMember = "workloadIdentityToken"

// endOf is when a JWT ends as it says itself, zero where it cannot be read. It is Tabard that verifies it.
func endOf(jwt secret.Text) time.Time {
	parts := strings.Split(jwt.Expose(), ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp <= 0 || claims.Exp > 1<<40 {
		return time.Time{}
	}
	return time.UnixMilli(int64(claims.Exp * 1000))
}

// renewals remember the JWT that a workload access token was minted for, until the JWT ends: an agent that works for
// longer than its token lives goes on with a new one. Least recently minted first out.
type renewals struct {
	most int
	now  func() time.Time

	mu    sync.Mutex // guards the rest
	items map[cacheKey]*list.Element
	order *list.List // of minted, the latest in front
}

type minted struct {
	key          cacheKey
	jwt          secret.Text
	expires, end time.Time // of the workload access token, and of the JWT
}

func newRenewals(most int, now func() time.Time) *renewals {
	return &renewals{most: most, now: now, items: map[cacheKey]*list.Element{}, order: list.New()}
}

// put remembers a token that ends before its JWT does. Any other cannot be renewed.
func (r *renewals) put(wat, jwt secret.Text, expires time.Time) {
	end := endOf(jwt)
	if jwt.IsZero() || expires.IsZero() || !expires.Before(end) {
		return
	}
	key := cacheKey(sha256.Sum256([]byte(wat.Expose())))
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.items[key]; ok {
		r.order.Remove(e)
	}
	r.items[key] = r.order.PushFront(minted{key, jwt, expires, end})
	for e := r.order.Back(); e != nil && (len(r.items) > r.most || !r.now().Before(e.Value.(minted).end)); e = r.order.Back() {
		delete(r.items, e.Value.(minted).key)
		r.order.Remove(e)
	}
}

// due returns the JWT for a token that has ended, or does so within tokenSkew; the zero Text where it has not, or where
// the JWT has ended too.
func (r *renewals) due(wat string) secret.Text {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.items[cacheKey(sha256.Sum256([]byte(wat)))]
	if !ok {
		return secret.Text{}
	}
	m, now := e.Value.(minted), r.now()
	if now.Before(m.expires.Add(-tokenSkew)) || !now.Before(m.end) {
		return secret.Text{}
	}
	return m.jwt
}

// renew returns the body of an identity call with a new token in place of one that this sidecar gave the agent and that
// has ended, while the user's JWT lives. Where no new one is to be had the body stays as it is: then Tabard says what
// is wrong.
func (m *minter) renew(ctx context.Context, body secret.Text) secret.Text {
	var members map[string]json.RawMessage
	var wat string
	if json.Unmarshal([]byte(body.Expose()), &members) != nil || json.Unmarshal(members[tokenMember], &wat) != nil {
		return body
	}
	jwt := m.renewals.due(wat)
	if jwt.IsZero() {
		return body
	}
	fresh, err := m.token(ctx, jwt)
	if err != nil {
		return body
	}
	text, err := json.Marshal(fresh.Expose())
	if err != nil {
		return body
	}
	members[tokenMember] = text
	out, err := json.Marshal(members)
	if err != nil {
		return body
	}
	return secret.New(string(out))
}
