package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

// reply is an answer as it came.
type reply struct {
	status int
	header http.Header
	body   string
}

// get returns a member of the answer, where it is a string.
func (r reply) get(name string) string {
	var members map[string]any
	if json.Unmarshal([]byte(r.body), &members) != nil {
		return ""
	}
	s, _ := members[name].(string)
	return s
}

// request makes a signed request of any method, path and body.
func (w *world) request(k key, method, path, body string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL()+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	sum := sha256.Sum256([]byte(body))
	at := time.Now().Add(time.Duration(w.ahead.Load()))
	err = v4.NewSigner().SignHTTP(w.t.Context(), aws.Credentials{AccessKeyID: k.ID, SecretAccessKey: k.Secret}, r,
		hex.EncodeToString(sum[:]), "bedrock-agentcore", daemon.DefaultRegion, at)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// do sends a request as it is and follows no redirect. It may be called from any goroutine; a request without an answer
// fails the test and has an empty reply.
func do(t *testing.T, r *http.Request) reply {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

// post sends a body, as it is, to an operation.
func (w *world) post(k key, op, body string) reply {
	w.t.Helper()
	o, ok := api.Find(op)
	if !ok {
		w.t.Fatalf("no operation %s", op)
	}
	return do(w.t, w.request(k, o.Method, o.Path, body))
}

// call is post of a JSON value; it fails the test where the answer is no success.
func (w *world) call(k key, op string, in any) reply {
	w.t.Helper()
	r := w.post(k, op, encode(w.t, in))
	if r.status/100 != 2 {
		w.t.Fatalf("%s answered %d %s", op, r.status, r.body)
	}
	return r
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// page fetches an address without following redirects.
func page(t *testing.T, method, address string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, r)
}

// replica starts a second server on the same database, with the same key and public URL, and a clock of its own.
func (w *world) replica(change ...func(*daemon.Config)) *world {
	w.t.Helper()
	other := &world{t: w.t, dataDir: filepath.Join(w.t.TempDir(), "data"), db: w.db, logs: &buffer{}, out: &buffer{}, idp: w.idp}
	keyFile := filepath.Join(w.dataDir, "key")
	if _, err := os.Stat(keyFile); err != nil {
		w.t.Fatal(err)
	}
	other.start(append([]func(*daemon.Config){func(c *daemon.Config) { c.KeyFile, c.PublicURL = keyFile, w.server.PublicURL() }}, change...)...)
	return other
}

// eventually polls until the condition holds, at most for the given time.
func eventually(within time.Duration, holds func() bool) bool {
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return true
		}
	}
	return holds()
}
