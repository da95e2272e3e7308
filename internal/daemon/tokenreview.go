package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	reviewPath    = "/apis/authentication.k8s.io/v1/tokenreviews"
	reviewTimeout = 10 * time.Second
	maxReview     = 1 << 20 // bytes of an answer
)

// reviewer asks Kubernetes API servers about tokens. It goes only where the configuration says, by https, with one
// connection pool for each server, and follows no redirect.
type reviewer struct{ servers map[string]reviewServer }

type reviewServer struct {
	url       string
	tokenFile string
	client    *http.Client
}

func newReviewer(given []TokenReview) (*reviewer, error) {
	r := &reviewer{servers: map[string]reviewServer{}}
	for _, t := range given {
		if _, twice := r.servers[t.Issuer]; twice {
			return nil, fmt.Errorf("token-reviews: the issuer %s is there twice", t.Issuer)
		}
		var roots *x509.CertPool
		if t.CAFile != "" {
			pem, err := os.ReadFile(t.CAFile)
			if err != nil {
				return nil, fmt.Errorf("token-reviews: ca-file of %s: %w", t.Issuer, err)
			}
			if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("token-reviews: ca-file of %s has no certificate", t.Issuer)
			}
		}
		if _, err := os.Stat(t.TokenFile); err != nil {
			return nil, fmt.Errorf("token-reviews: token-file of %s: %w", t.Issuer, err)
		}
		r.servers[t.Issuer] = reviewServer{url: t.APIServer + reviewPath, tokenFile: t.TokenFile, client: &http.Client{
			Timeout:       reviewTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, TLSHandshakeTimeout: reviewTimeout,
				MaxResponseHeaderBytes: 64 << 10, MaxConnsPerHost: 32, IdleConnTimeout: 30 * time.Second,
			},
		}}
	}
	return r, nil
}

// Reviews implements federation.Reviewer.
func (r *reviewer) Reviews(issuer string) bool {
	_, ok := r.servers[issuer]
	return ok
}

// tokenReview is the resource TokenReview of authentication.k8s.io/v1, as far as it is used here.
type tokenReview struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Spec       reviewSpec   `json:"spec"`
	Status     reviewStatus `json:"status,omitzero"`
}

type reviewSpec struct {
	Token     string   `json:"token"`
	Audiences []string `json:"audiences"`
}

type reviewStatus struct {
	Authenticated bool     `json:"authenticated"`
	Audiences     []string `json:"audiences"`
	User          struct {
		Username string `json:"username"`
	} `json:"user"`
}

// Review implements federation.Reviewer.
func (r *reviewer) Review(ctx context.Context, issuer string, token secret.Text, subject string, audiences []string) error {
	server, ok := r.servers[issuer]
	if !ok {
		return fault.New(fault.Internal, "tokens of the issuer %s are not reviewed", issuer)
	}
	status, err := server.ask(ctx, token, audiences)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the token review of the issuer %s gives no answer", issuer)
	}
	switch {
	case !status.Authenticated:
		return fault.New(fault.Unauthenticated, "the API server does not know the token: its pod or service account may be gone")
	case status.User.Username != subject:
		return fault.New(fault.Unauthenticated, "the API server knows the token as another's")
	case !slices.ContainsFunc(status.Audiences, func(a string) bool { return slices.Contains(audiences, a) }):
		// An API server that knows nothing of audiences leaves them out, and would take a token for anybody.
		return fault.New(fault.Unauthenticated, "the API server does not say that the token is for us")
	}
	return nil
}

// ask puts one question. The errors have nothing of the tokens.
func (s reviewServer) ask(ctx context.Context, token secret.Text, audiences []string) (reviewStatus, error) {
	own, err := os.ReadFile(s.tokenFile)
	if err != nil {
		return reviewStatus{}, err
	}
	body, err := json.Marshal(tokenReview{
		APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview", Spec: reviewSpec{Token: token.Expose(), Audiences: audiences},
	})
	if err != nil {
		return reviewStatus{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return reviewStatus{}, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(own)))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return reviewStatus{}, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxReview))
	if err != nil {
		return reviewStatus{}, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return reviewStatus{}, fmt.Errorf("it answered HTTP %d", resp.StatusCode)
	}
	var review tokenReview
	if json.Unmarshal(answer, &review) != nil || review.Kind != "TokenReview" {
		return reviewStatus{}, errors.New("its answer is no TokenReview")
	}
	return review.Status, nil
}
