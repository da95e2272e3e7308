package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/internal/daemon"
)

const (
	rootID     = "TABARDCHAOSCHAOS0000"
	rootSecret = "chaos-root-secret-4f1d2c9b8a7e6d5c"
	startTime  = 30 * time.Second
)

// world is one server, killed and started again, and what its clients were given.
type world struct {
	config
	cmd         *exec.Cmd
	url         string
	kills       int
	checkpoints int
	token       string // a workload access token: it outlives the server

	mu       sync.Mutex // guards released
	released map[string]bool
}

func (w *world) data() string { return filepath.Join(w.dir, "data") }
func (w *world) kept() string { return filepath.Join(w.dir, "checkpoints") }

// start starts the server and waits until it answers.
func (w *world) start(ctx context.Context) error {
	_ = os.Remove(daemon.EndpointPath(w.data())) // of the server before
	cmd := exec.Command(w.tabard, "serve", "--addr", "127.0.0.1:0", "--data-dir", w.data(), "--audit-checkpoint-file", w.kept())
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "TABARD_DB=" + w.db, "TABARD_ROOT_ACCESS_KEY_ID=" + rootID, "TABARD_ROOT_SECRET_ACCESS_KEY=" + rootSecret}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return err
	}
	w.cmd = cmd
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		at, err := daemon.ReadLine(daemon.EndpointPath(w.data()))
		if err != nil || at == "" {
			continue
		}
		if resp, err := http.Get(at + "/readyz"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				w.url = at
				return nil
			}
		}
	}
	w.kill()
	return fmt.Errorf("the server did not start: %s", out.String())
}

// kill is kill -9.
func (w *world) kill() {
	if w.cmd == nil {
		return
	}
	_ = w.cmd.Process.Kill() // gone already where it fails
	_ = w.cmd.Wait()
	w.cmd = nil
}

// call performs one operation as root and returns the request id.
func (w *world) call(ctx context.Context, path string, in, out any) (requestID string, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	sum := sha256.Sum256(body)
	key := aws.Credentials{AccessKeyID: rootID, SecretAccessKey: rootSecret}
	if err := v4.NewSigner().SignHTTP(ctx, key, r, hex.EncodeToString(sum[:]), "bedrock-agentcore", daemon.DefaultRegion, time.Now()); err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode/100 != 2 {
		return "", fmt.Errorf("%s answered %d %s", path, resp.StatusCode, doc)
	}
	return resp.Header.Get("X-Amzn-Requestid"), json.Unmarshal(doc, out)
}

// prepare makes an agent and an API key that it may have.
func (w *world) prepare(ctx context.Context) error {
	var none map[string]any
	if _, err := w.call(ctx, "/identities/CreateWorkloadIdentity", map[string]any{"name": "chaos-agent"}, &none); err != nil {
		return err
	}
	if _, err := w.call(ctx, "/identities/CreateApiKeyCredentialProvider", map[string]any{"name": "chaos-key", "apiKey": "k" + rand.Text()}, &none); err != nil {
		return err
	}
	var wat struct {
		Token string `json:"workloadAccessToken"`
	}
	_, err := w.call(ctx, "/identities/GetWorkloadAccessToken", map[string]any{"workloadName": "chaos-agent"}, &wat)
	w.token = wat.Token
	return err
}

// round releases from several clients for a moment, kills the server meanwhile, and starts it again.
func (w *world) round(ctx context.Context) error {
	load, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	for range w.clients {
		group.Go(func() { w.release(load) })
	}
	// Now and then a checkpoint is under way when it dies.
	time.Sleep(time.Duration(100+mathrand.IntN(500)) * time.Millisecond)
	if w.kills%2 == 0 {
		var none map[string]any
		_, _ = w.call(ctx, "/tabard/CreateAuditCheckpoint", map[string]any{}, &none) // judge looks at what was kept
		time.Sleep(time.Duration(mathrand.IntN(50)) * time.Millisecond)
	}
	w.kill()
	w.kills++
	stop()
	group.Wait()
	return w.start(ctx)
}

// release asks for the key again and again until the server dies.
func (w *world) release(ctx context.Context) {
	for ctx.Err() == nil {
		var got struct {
			Key string `json:"apiKey"`
		}
		id, err := w.call(ctx, "/identities/api-key", map[string]any{"workloadIdentityToken": w.token, "resourceCredentialProviderName": "chaos-key"}, &got)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if got.Key != "" && id != "" {
			w.mu.Lock()
			w.released[id] = true
			w.mu.Unlock()
		}
	}
}

// judge holds what clients were given against the trail.
func (w *world) judge(ctx context.Context) error {
	var none map[string]any
	if _, err := w.call(ctx, "/tabard/CreateAuditCheckpoint", map[string]any{}, &none); err != nil {
		return err
	}
	recorded, err := w.recorded(ctx)
	if err != nil {
		return err
	}
	for id := range w.released {
		if !recorded[id] {
			return fmt.Errorf("request %s was given a secret and has no audit record", id)
		}
	}
	doc, err := os.ReadFile(w.kept())
	if err != nil {
		return err
	}
	tokens := strings.Fields(string(doc))
	for i, token := range tokens {
		if i > 0 && i < len(tokens)-1 && i%5 != 0 {
			continue // some of them
		}
		if err := w.verify(ctx, token); err != nil {
			return fmt.Errorf("by checkpoint %d of %d: %w", i+1, len(tokens), err)
		}
		w.checkpoints++
	}
	if w.checkpoints == 0 {
		return errors.New("no checkpoint was kept")
	}
	return nil
}

// recorded reads the whole trail and returns the requests that were allowed an API key.
func (w *world) recorded(ctx context.Context) (map[string]bool, error) {
	ids, next := map[string]bool{}, ""
	for {
		var a struct {
			Records []struct {
				RequestID string `json:"requestId"`
				Decision  string `json:"decision"`
			} `json:"records"`
			NextToken string `json:"nextToken"`
		}
		in := map[string]any{"maxResults": 1000, "operation": "GetResourceApiKey"}
		if next != "" {
			in["nextToken"] = next
		}
		if _, err := w.call(ctx, "/tabard/ListAuditRecords", in, &a); err != nil {
			return nil, err
		}
		for _, r := range a.Records {
			ids[r.RequestID] = ids[r.RequestID] || r.Decision == "allow"
		}
		if next = a.NextToken; next == "" {
			return ids, nil
		}
	}
}

func (w *world) verify(ctx context.Context, token string) error {
	for next := ""; ; {
		var a struct {
			Verified  bool             `json:"verified"`
			Findings  []map[string]any `json:"findings"`
			NextToken string           `json:"nextToken"`
		}
		in := map[string]any{"checkpoint": token}
		if next != "" {
			in["nextToken"] = next
		}
		if _, err := w.call(ctx, "/tabard/VerifyAudit", in, &a); err != nil {
			return err
		}
		if !a.Verified {
			return fmt.Errorf("the trail does not verify: %v", a.Findings)
		}
		if next = a.NextToken; next == "" {
			return nil
		}
	}
}
