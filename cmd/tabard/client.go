package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/tabard-id/tabard/api"
	"github.com/tabard-id/tabard/internal/daemon"
)

const (
	signingName    = "bedrock-agentcore" // what AWS's SDKs sign both planes with
	requestTimeout = 30 * time.Second
	maxAnswer      = 16 << 20 // bytes; a page of audit records is far below
)

// client calls the operations of one server, signed with one access key.
type client struct {
	location
	http        *http.Client
	credentials aws.Credentials
}

// dial finds the server and the access key. It does not connect yet.
func (f *finder) dial(ctx context.Context) (*client, error) {
	where, err := f.find()
	if err != nil {
		return nil, err
	}
	where.url = strings.TrimSuffix(where.url, "/")
	if u, err := url.Parse(where.url); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		fmt.Fprintf(f.cmd.ErrOrStderr(), "warning: %s carries what the server answers in clear\n", where.url)
	}
	c := &client{location: where, http: &http.Client{
		Timeout:       requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.credentials, err = f.credentials(ctx, where)
	return c, err
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// credentials are those of AWS's default chain. Where nothing of that is configured, and the server's data directory is
// here, they are the root access key that it made.
func (f *finder) credentials(ctx context.Context, where location) (aws.Credentials, error) {
	opts := []func(*config.LoadOptions) error{
		config.WithRegion(where.region),
		config.WithEC2IMDSClientEnableState(imds.ClientDisabled), // a machine's role is no principal here, and asking takes seconds
	}
	own := daemon.CredentialsPath(f.dataDir)
	if where.fromDataDir && exists(own) && !f.configured() {
		opts = append(opts, config.WithSharedConfigProfile(daemon.Profile), config.WithSharedCredentialsFiles([]string{own}), config.WithSharedConfigFiles([]string{}))
	}
	missing := func(err error) error {
		for _, name := range borrowed() {
			if value := f.env(name); value != "" && f.env("AWS_ACCESS_KEY_ID") == "" {
				return &failure{exit: exitDenied, msg: "no access key to sign with: " + oneLine(err.Error()), err: err, hints: []string{
					name + " is set, and what it names was refused or does not answer: tabard audit tail says why, of a Tabard server",
					"or unset it, and set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}}
			}
		}
		return &failure{exit: exitDenied, msg: "no access key to sign with", err: err, hints: []string{
			`run: eval "$(tabard env)", where the server's data directory is on this machine`,
			"or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}}
	}
	c, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return aws.Credentials{}, missing(err)
	}
	got, err := c.Credentials.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, missing(err)
	}
	return got, nil
}

// borrowed returns the variables by which SDKs get a session from somewhere else.
func borrowed() []string {
	return []string{"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"}
}

// configured reports whether the environment says which credentials to use.
func (f *finder) configured() bool {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		if f.env(name) != "" {
			return true
		}
	}
	return false
}

// request is an input that knows its constraints.
type request[Q any] interface {
	*Q
	Validate() []api.FieldError
}

// call performs the operation name with the input q, as a whole in the body. What breaks the model's constraints is a
// usage error without a request; an exception is an *apiError.
func call[A, Q any, P request[Q]](ctx context.Context, c *client, name string, q Q) (A, error) {
	op, _ := api.Find(name) // the names are constants of the package api
	return perform[A, Q, P](ctx, c, op, op.Path, q)
}

// callOn performs an operation on the resource arn, whose ARN is in the path and whose other input may be in the query.
func callOn[A, Q any, P request[Q]](ctx context.Context, c *client, name, arn string, query url.Values, q Q) (A, error) {
	op, _ := api.Find(name)
	target := strings.Replace(op.Path, "{resourceArn}", url.PathEscape(arn), 1)
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return perform[A, Q, P](ctx, c, op, target, q)
}

func perform[A, Q any, P request[Q]](ctx context.Context, c *client, op api.Operation, target string, q Q) (A, error) {
	var answer A
	if bad := P(&q).Validate(); len(bad) > 0 {
		return answer, usage(ownHelp, "%s: %s", bad[0].Name, bad[0].Message)
	}
	var body []byte
	if op.Method == http.MethodPost {
		var err error
		if body, err = json.Marshal(q); err != nil {
			return answer, err
		}
	}
	got, err := c.send(ctx, op.Method, target, body)
	if err != nil || len(got) == 0 && op.Status == http.StatusNoContent {
		return answer, err
	}
	if err := json.Unmarshal(got, &answer); err != nil {
		return answer, fmt.Errorf("the server's answer cannot be read: is %s a Tabard server?", c.url)
	}
	return answer, nil
}

// send sends one signed request and returns the body of a success.
func (c *client) send(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	return c.sendAs(ctx, method, target, "application/json", body)
}

// sendAs is send of a body of another type.
func (c *client) sendAs(ctx context.Context, method, target, contentType string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.url+target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	if body != nil {
		r.Header.Set("Content-Type", contentType)
	}
	r.Header.Set("X-Amz-Content-Sha256", hash)
	r.Header.Set("User-Agent", "tabard-cli")
	if err := v4.NewSigner().SignHTTP(ctx, c.credentials, r, hash, signingName, c.region, time.Now()); err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, errorOf(resp, got)
	}
	return got, nil
}

func (c *client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the method and the URL again
	}
	return &failure{exit: exitUnavailable, err: err, msg: fmt.Sprintf("no answer from %s: %s", c.url, oneLine(err.Error())),
		hints: []string{"is the server running? tabard serve starts one, --endpoint names another"}}
}

// errorOf reads a restJson1 error: the exception's name is in a header, before any ':'; the sentence is in the body. So
// it is where OAuth defines the body (RFC 6749 §5.2).
func errorOf(resp *http.Response, body []byte) error {
	name, _, _ := strings.Cut(resp.Header.Get("X-Amzn-Errortype"), ":")
	e := &apiError{status: resp.StatusCode, exception: oneLine(name), requestID: oneLine(resp.Header.Get("X-Amzn-Requestid"))}
	var doc struct {
		Message     string `json:"message"`
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	err := json.Unmarshal(body, &doc)
	if doc.Error != "" && doc.Message == "" {
		doc.Message = doc.Error + ": " + doc.Description
	}
	if err != nil || doc.Message == "" {
		doc.Message = fmt.Sprintf("the server answered %s", resp.Status)
	}
	e.message = oneLine(doc.Message)
	return e
}
