package tabard

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// quiet is applied to every call: it reads Tabard's extra members, and keeps the AWS client from logging bodies even
// if the program's AWS configuration asks for it, since each body of these operations holds a token.
func quiet(o *bedrockagentcore.Options) {
	o.ClientLogMode &^= aws.LogRequestWithBody | aws.LogResponseWithBody
	o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
		return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("TabardExtras", readExtras), middleware.After)
	})
}

// maxAnswer bounds what is looked through for extra members; the largest modelled answer is a quarter of it.
const maxAnswer = 1 << 20

// extras are the response members that Tabard adds to AWS's. AWS sends none of them.
type extras struct {
	expiry    time.Time // expiresAt: a number, epoch seconds
	scopes    []string  // grantedScopes
	tokenType string    // tokenType
	state     string    // connectionState
	id        string    // connectionId
}

type extrasKey struct{}

func extrasOf(meta middleware.Metadata) extras {
	e, _ := meta.Get(extrasKey{}).(extras)
	return e
}

// readExtras copies the answer's body on its way to the AWS client's own deserializer.
func readExtras(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
	middleware.DeserializeOutput, middleware.Metadata, error) {
	out, meta, err := next.HandleDeserialize(ctx, in)
	resp, ok := out.RawResponse.(*smithyhttp.Response)
	if err != nil || !ok || resp.Body == nil || resp.StatusCode < 200 || resp.StatusCode > 299 {
		return out, meta, err
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return out, meta, &smithyhttp.RequestSendError{Err: err}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), resp.Body), resp.Body}
	meta.Set(extrasKey{}, parseExtras(raw))
	return out, meta, nil
}

// parseExtras never fails: a member of another type than ours is some other service's member. It decodes into a map,
// which unlike a struct is exact about the case of names.
func parseExtras(raw []byte) extras {
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil {
		return extras{}
	}
	e := extras{
		scopes:    member[[]string](members, "grantedScopes"),
		tokenType: member[string](members, "tokenType"),
		state:     member[string](members, "connectionState"),
		id:        member[string](members, "connectionId"),
	}
	const last = 253402300799 // the end of the year 9999, beyond which time.Time does not marshal
	if seconds := member[float64](members, "expiresAt"); seconds > 0 && seconds <= last {
		whole, part := math.Modf(seconds)
		e.expiry = time.Unix(int64(whole), int64(part*1e9))
	}
	return e
}

func member[T any](members map[string]json.RawMessage, name string) T {
	var v, none T
	if json.Unmarshal(members[name], &v) != nil {
		return none
	}
	return v
}
