package daemon_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tabard-id/tabard/internal/daemon"
)

func TestTokenReviewsOfTheFile(t *testing.T) {
	const good = `token-reviews:
  - issuer: https://kubernetes.default.svc
    api-server: https://kubernetes.default.svc:443
    token-file: /var/run/secrets/kubernetes.io/serviceaccount/token
    ca-file: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
`
	c, err := daemon.Load(daemon.Sources{File: file(t, good)})
	if err != nil {
		t.Fatal(err)
	}
	want := []daemon.TokenReview{{
		Issuer: "https://kubernetes.default.svc", APIServer: "https://kubernetes.default.svc:443",
		TokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token", CAFile: "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
	}}
	if d := cmp.Diff(want, c.TokenReviews); d != "" {
		t.Error(d)
	}
	entry := func(lines string) daemon.Sources {
		return daemon.Sources{File: file(t, "token-reviews:\n  - "+lines+"\n")}
	}
	refusedBy(t, entry("issuer: kubernetes/serviceaccount"), "token-reviews", "kubernetes/serviceaccount")
	refusedBy(t, entry("issuer: https://a.example\n    api-server: http://10.0.0.1\n    token-file: x"), "https", "https://a.example")
	refusedBy(t, entry("issuer: https://a.example\n    api-server: https://10.0.0.1/path\n    token-file: x"), "api-server", "nothing more")
	refusedBy(t, entry("issuer: https://a.example\n    api-server: https://10.0.0.1"), "token-file", "https://a.example")
	refusedBy(t, entry("issuer: https://a.example\n    token: secret"), "token-reviews", "token")
}

// What is missing stops the start, and not the first workload.
func TestTokenReviewNeedsItsFiles(t *testing.T) {
	for what, r := range map[string]daemon.TokenReview{
		"no token": {Issuer: "https://a.example", APIServer: "https://b.example", TokenFile: filepath.Join(t.TempDir(), "none")},
		"no CA":    {Issuer: "https://a.example", APIServer: "https://b.example", TokenFile: file(t, "x"), CAFile: filepath.Join(t.TempDir(), "none")},
		"bad CA":   {Issuer: "https://a.example", APIServer: "https://b.example", TokenFile: file(t, "x"), CAFile: file(t, "no certificate")},
	} {
		s, err := daemon.New(t.Context(), daemon.Config{Addr: "127.0.0.1:0", DataDir: filepath.Join(t.TempDir(), "data"), TokenReviews: []daemon.TokenReview{r}})
		if err == nil {
			s.Close()
			t.Errorf("%s: the server started", what)
		}
	}
}
