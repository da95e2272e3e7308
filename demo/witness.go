package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/tabard-id/tabard/internal/secret"
)

// witness is the agent's HTTP transport to Tabard, with open eyes. The SDK mints, keeps and renews the workload access
// token and shows it to nobody; so that the demo can show that it is there, the witness looks at it in passing.
type witness struct {
	base http.RoundTripper

	mu   sync.Mutex           // guards the rest
	wats map[string]string    // the last one used, by the fingerprint of the human token it was minted for
	ends map[string]time.Time // when one ends, by its own fingerprint
}

func newWitness() *witness {
	return &witness{base: &http.Transport{}, wats: map[string]string{}, ends: map[string]time.Time{}}
}

// minted is the answer to a request for a workload access token, with Tabard's own member expiresAt.
type minted struct {
	WorkloadAccessToken string
	ExpiresAt           float64
}

// sightings are what the witness saw of one invocation.
type sightings struct {
	human string // fingerprint of the human token

	mu       sync.Mutex // guards the rest
	wat      string     // fingerprint of the workload access token
	ends     time.Time  // when it ends
	requests []string   // ids that Tabard gave to the requests
}

type sightingsKey struct{}

// watch returns a context whose requests are seen.
func watch(ctx context.Context, human string) (context.Context, *sightings) {
	s := &sightings{human: human}
	return context.WithValue(ctx, sightingsKey{}, s), s
}

// seen returns what is known of the workload access token, with an empty fingerprint if there is none yet, and the
// requests so far.
func (s *sightings) seen() (tokenView, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return tokenView{Kind: workloadToken, Holder: "agent", Audience: "Tabard alone", Fingerprint: s.wat, Expires: s.ends}, slices.Clone(s.requests)
}

// RoundTrip implements http.RoundTripper.
func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	s, ok := req.Context().Value(sightingsKey{}).(*sightings)
	if !ok || req.Body == nil {
		return w.base.RoundTrip(req)
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	_ = req.Body.Close()
	if err != nil {
		return nil, err
	}
	again := req.Clone(req.Context())
	again.Body = io.NopCloser(bytes.NewReader(body))
	resp, err := w.base.RoundTrip(again)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	w.note(s, resp.Header.Get("X-Amzn-Requestid"), body, answer)
	return resp, nil
}

// note keeps what a request and its answer tell. What is not JSON, or of another operation, tells nothing.
func (w *witness) note(s *sightings, requestID string, body, answer []byte) {
	var used struct{ WorkloadIdentityToken string }
	var fresh minted
	_ = json.Unmarshal(body, &used)
	_ = json.Unmarshal(answer, &fresh)
	w.mu.Lock()
	if fresh.WorkloadAccessToken != "" && fresh.ExpiresAt > 0 {
		w.ends[secret.New(fresh.WorkloadAccessToken).Fingerprint()] = time.Unix(int64(fresh.ExpiresAt), 0)
	}
	fingerprint := secret.New(used.WorkloadIdentityToken).Fingerprint()
	ends := w.ends[fingerprint]
	if used.WorkloadIdentityToken != "" {
		w.wats[s.human] = used.WorkloadIdentityToken
	}
	w.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, requestID)
	if used.WorkloadIdentityToken != "" {
		s.wat, s.ends = fingerprint, ends
	}
}

// betray puts the workload access token that was last used for a human token into a header: what a thief would do who
// had read the agent's memory. The story proves that it does not help.
func (w *witness) betray(human string, h http.Header, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	wat, ok := w.wats[human]
	if ok {
		h.Set(name, wat)
	}
	return ok
}
