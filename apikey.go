package tabard

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"

	"github.com/tabard-id/tabard/internal/secret"
)

// APIKey is an API key from the vault. Printing and logging it masks the key; marshaling it fails.
type APIKey struct{ key secret.Text }

// Value is the key itself.
func (k APIKey) Value() string { return k.key.Expose() }

// SetHeader sets the named header of r to the key, as most interfaces with keys want it.
func (k APIKey) SetHeader(r *http.Request, name string) { r.Header.Set(name, k.key.Expose()) }

// Format prints the key without its value, under every verb.
func (k APIKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "tabard.APIKey("+mask+")") }

// LogValue is the key in log/slog, without its value.
func (k APIKey) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalJSON always fails.
func (k APIKey) MarshalJSON() ([]byte, error) { return nil, errMarshal }

// APIKey returns the key that the credential provider keeps for the agent. No user is needed; if ctx has one, the call
// is made and audited on the user's behalf. Errors are as Token's.
func (c *Client) APIKey(ctx context.Context, from KeyFrom) (APIKey, error) {
	if err := from.Validate(); err != nil {
		return APIKey{}, err
	}
	const op = "GetResourceApiKey"
	var out *bedrockagentcore.GetResourceApiKeyOutput
	err := c.as(ctx, valuesOf(ctx).who, func(wat secret.Text) error {
		var err error
		out, err = c.api.GetResourceApiKey(ctx, &bedrockagentcore.GetResourceApiKeyInput{
			WorkloadIdentityToken: aws.String(wat.Expose()), ResourceCredentialProviderName: aws.String(string(from))}, quiet)
		return failure(ctx, op, err)
	})
	if err != nil {
		return APIKey{}, err
	}
	if aws.ToString(out.ApiKey) == "" {
		return APIKey{}, &Error{Code: ErrInternal, Op: op, Message: "the answer has no key"}
	}
	return APIKey{secret.New(*out.ApiKey)}, nil
}
