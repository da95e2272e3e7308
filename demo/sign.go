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
)

// operator calls the operations that Tabard has and AWS has not, under POST /tabard/{operation}, in AWS's own protocol:
// JSON signed with SigV4.
type operator struct {
	endpoint    string
	region      string
	credentials aws.CredentialsProvider
	client      *http.Client
}

// exception is an error answer of the API.
type exception struct {
	Operation, Name, Message string
}

// Error is the service's sentence.
func (e *exception) Error() string { return e.Operation + ": " + e.Name + ": " + e.Message }

// call sends in as JSON and decodes the answer into out. A refusal is an *exception.
func (o *operator) call(ctx context.Context, operation string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.endpoint+"/tabard/"+operation, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	who, err := o.credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, who, req, hex.EncodeToString(sum[:]), "bedrock-agentcore", o.region, time.Now()); err != nil {
		return err
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		e := &exception{Operation: operation, Name: resp.Header.Get("X-Amzn-Errortype")}
		_ = json.Unmarshal(answer, e) // an answer without a message keeps its name
		return e
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: the answer is not what it should be: %w", operation, err)
	}
	return nil
}
