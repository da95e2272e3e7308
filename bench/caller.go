package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

// caller calls the server's public API with one access key, signed by AWS's own signer.
type caller struct {
	addr string // host:port
	keys aws.Credentials
}

// signed returns a request whose signature holds for the minutes around now.
func (c caller) signed(ctx context.Context, op api.Operation, body []byte, now time.Time) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, op.Method, "http://"+c.addr+op.Path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tabard-bench")
	sum := sha256.Sum256(body)
	return req, v4.NewSigner().SignHTTP(ctx, c.keys, req, hex.EncodeToString(sum[:]), "bedrock-agentcore", daemon.DefaultRegion, now)
}

// call performs the operation named name. An answer that is no success is an error.
func (c caller) call(ctx context.Context, name string, in, out any) error {
	op, ok := api.Find(name)
	if !ok {
		return fmt.Errorf("no operation %s", name)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := c.signed(ctx, op, body, time.Now())
	if err != nil {
		return err
	}
	client := http.Client{Timeout: requestTimeout}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != op.Status {
		return fmt.Errorf("%s answered %d: %.300s", name, resp.StatusCode, answer)
	}
	return json.Unmarshal(answer, out)
}

// wire returns the bytes of a signed request as they go over a keep-alive connection.
func (c caller) wire(ctx context.Context, op api.Operation, body []byte, now time.Time) ([]byte, error) {
	req, err := c.signed(ctx, op, body, now)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := req.Write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
