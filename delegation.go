package tabard

import (
	"context"
	"encoding/json"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/bedrockagentcore"

	"github.com/tabard-id/tabard/internal/secret"
)

// WithDelegation returns a context in which the agent acts for the user who made the delegation with the id, without a
// token of the user's: for jobs that run while the user is not there. Only the providers and scopes of the delegation
// are served: anything else, a consent that is missing, and a delegation that has ended or expired, is ErrDenied. It
// replaces any identity in ctx. It is an operation of Tabard, which AWS does not have.
func WithDelegation(ctx context.Context, id string) context.Context {
	return withIdentity(ctx, identity{byDelegation, secret.New(id)})
}

// mintDelegated asks for a workload access token under a delegation, and says until when it may be used.
func (c *Client) mintDelegated(ctx context.Context, id secret.Text) (secret.Text, time.Time, error) {
	const op = "GetWorkloadAccessTokenForDelegation"
	body, err := json.Marshal(map[string]string{"workloadName": c.workload, "delegationId": id.Expose()})
	if err != nil {
		return secret.Text{}, time.Time{}, invalid("the id of the delegation cannot be sent")
	}
	var answer map[string]json.RawMessage
	_, err = c.api.GetWorkloadAccessToken(ctx, &bedrockagentcore.GetWorkloadAccessTokenInput{WorkloadName: aws.String("-")}, quiet,
		func(o *bedrockagentcore.Options) { o.APIOptions = append(o.APIOptions, replace(op, body, &answer)) })
	if err != nil {
		return secret.Text{}, time.Time{}, failure(ctx, op, err)
	}
	wat := member[string](answer, "workloadAccessToken")
	if wat == "" {
		return secret.Text{}, time.Time{}, &Error{Code: ErrInternal, Op: op, Message: "the answer has no workload access token"}
	}
	end := c.now().Add(watUnknown)
	if seconds := member[float64](answer, "expiresAt"); seconds > 0 {
		end = time.UnixMilli(int64(seconds * 1000)).Add(-watSkew)
	}
	return secret.New(wat), end, nil
}
