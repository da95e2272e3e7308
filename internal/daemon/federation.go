package daemon

import (
	"fmt"
	"net/url"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/federation"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/oauth"
)

// TokenReview says where a Kubernetes API server is asked whether the tokens of an issuer still live. It is in the
// configuration file alone: what is asked gets the tokens.
type TokenReview struct {
	Issuer    string `yaml:"issuer"`     // URL of a workload issuer, in whichever account
	APIServer string `yaml:"api-server"` // https://host[:port]
	TokenFile string `yaml:"token-file"` // this server's own token for the API server; read again for each question
	CAFile    string `yaml:"ca-file"`    // PEM; the system's authorities where empty
}

// newFederation builds the federation of workloads.
func (s *Server) newFederation(dialer *oauth.Client) (*federation.Service, error) {
	c := s.config
	reviewer, err := newReviewer(c.TokenReviews)
	if err != nil {
		return nil, err
	}
	return federation.New(federation.Config{
		Store: s.db, Vault: s.vault, Guard: s.guard, Keys: dialer, Metadata: dialer, Reviewer: reviewer, Server: c.PublicURL,
		Account: access.Account(c.Account), Now: c.Now, Dev: c.Dev,
	})
}

// check refuses what cannot work, with a sentence.
func (r TokenReview) check(dev bool) error {
	if why := identity.IssuerURLFlaw(r.Issuer, dev); why != "" {
		return fmt.Errorf("token-reviews: %q cannot be an issuer: %s", r.Issuer, why)
	}
	u, err := url.Parse(r.APIServer)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("token-reviews: api-server of %s must be https://host[:port] and nothing more", r.Issuer)
	case u.Scheme == "http" && dev && identity.IsLoopback(u.Hostname()):
	case u.Scheme != "https":
		return fmt.Errorf("token-reviews: api-server of %s must be https: it gets tokens", r.Issuer)
	}
	if r.TokenFile == "" {
		return fmt.Errorf("token-reviews: %s needs a token-file, with the token that this server shows the API server", r.Issuer)
	}
	return nil
}
