package tabard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/tabard-id/tabard/internal/secret"
)

// UserDescription is for whom the service acts: what the workload access token says, without asking anybody.
type UserDescription struct {
	Kind            string    // "jwt" for a user known by a token, "uid" for one that the application asserts, "none"
	Issuer          string    // of the token, for the kind "jwt"
	Subject         string    // at that issuer
	UserID          string    // for the kind "uid"
	UserRef         string    // how the audit trail names the user
	AuthenticatedAt time.Time // when the user logged in; zero where the user's token does not say
}

// UserInfo is what the user's issuer tells of the user (OpenID Connect Core §5.3). What it does not tell is empty.
type UserInfo struct {
	Subject           string
	Name              string
	PreferredUsername string
	Email             string
	EmailVerified     bool
	Claims            string // all that it tells: a JSON object
}

// DescribeUser says who the user in ctx is to the service. It is an operation of Tabard, which AWS does not have.
// Errors are as Client.Token's.
func (c *Client) DescribeUser(ctx context.Context) (*UserDescription, error) {
	m, err := c.ours(ctx, "DescribeUser")
	if err != nil {
		return nil, err
	}
	d := &UserDescription{
		Kind: member[string](m, "kind"), Issuer: member[string](m, "issuer"), Subject: member[string](m, "subject"),
		UserID: member[string](m, "userId"), UserRef: member[string](m, "userRef"),
	}
	if seconds := member[float64](m, "authenticatedAt"); seconds > 0 {
		d.AuthenticatedAt = time.UnixMilli(int64(seconds * 1000))
	}
	return d, nil
}

// UserInfo asks the issuer of the user in ctx, with the user's own token, who the user is. It needs a user known by
// WithUserToken, and an issuer that was added with --userinfo; else the error is ErrInvalid. It is an operation of
// Tabard, which AWS does not have. Other errors are as Client.Token's.
func (c *Client) UserInfo(ctx context.Context) (*UserInfo, error) {
	m, err := c.ours(ctx, "GetUserInfo")
	if err != nil {
		return nil, err
	}
	return &UserInfo{
		Subject: member[string](m, "subject"), Name: member[string](m, "name"), PreferredUsername: member[string](m, "preferredUsername"),
		Email: member[string](m, "email"), EmailVerified: member[bool](m, "emailVerified"), Claims: member[string](m, "claims"),
	}, nil
}

// ours calls an operation of Tabard that takes a workload access token. It goes through the AWS client of an operation
// that takes and answers JSON as ours do, so that endpoint, credentials, signing, retries and errors are the same.
func (c *Client) ours(ctx context.Context, op string) (map[string]json.RawMessage, error) {
	who := valuesOf(ctx).who
	if who.kind == nobody {
		return nil, &Error{Code: ErrNoIdentity, Message: "the context has no user: pass the request's context, or set one with WithUserToken"}
	}
	return c.oursAs(ctx, who, op, nil)
}

// oursAs is ours for who, with more members in the request than the workload access token.
func (c *Client) oursAs(ctx context.Context, who identity, op string, more map[string]string) (answer map[string]json.RawMessage, err error) {
	err = c.as(ctx, who, func(wat secret.Text) error {
		members := map[string]string{"workloadIdentityToken": wat.Expose()}
		maps.Copy(members, more)
		body, err := json.Marshal(members)
		if err != nil {
			return invalid("the workload access token cannot be sent")
		}
		_, err = c.api.GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("-")}, quiet,
			func(o *bedrockagentcore.Options) { o.APIOptions = append(o.APIOptions, replace(op, body, &answer)) })
		return failure(ctx, op, err)
	})
	return answer, err
}

// replace sends body to our operation in place of what was serialized, and keeps the members of a success.
func replace(op string, body []byte, answer *map[string]json.RawMessage) func(*middleware.Stack) error {
	send := middleware.SerializeMiddlewareFunc("TabardOperation", func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (
		middleware.SerializeOutput, middleware.Metadata, error) {
		req, ok := in.Request.(*smithyhttp.Request)
		if !ok {
			return middleware.SerializeOutput{}, middleware.Metadata{}, errors.New("tabard: a request of another transport")
		}
		req.URL.Path, req.URL.RawPath = "/tabard/"+op, ""
		req, err := req.SetStream(bytes.NewReader(body))
		if err != nil {
			return middleware.SerializeOutput{}, middleware.Metadata{}, err
		}
		in.Request = req
		return next.HandleSerialize(ctx, in)
	})
	read := middleware.DeserializeMiddlewareFunc("TabardAnswer", func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
		middleware.DeserializeOutput, middleware.Metadata, error) {
		out, meta, err := next.HandleDeserialize(ctx, in)
		resp, ok := out.RawResponse.(*smithyhttp.Response)
		if err != nil || !ok || resp.StatusCode < 200 || resp.StatusCode > 299 {
			return out, meta, err
		}
		raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return out, meta, &smithyhttp.RequestSendError{Err: err}
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{bytes.NewReader(raw), resp.Body}
		if json.Unmarshal(raw, answer) != nil {
			*answer = nil // the AWS client's own deserializer says what is wrong
		}
		return out, meta, nil
	})
	return func(stack *middleware.Stack) error {
		return errors.Join(stack.Serialize.Add(send, middleware.After), stack.Deserialize.Add(read, middleware.After))
	}
}
