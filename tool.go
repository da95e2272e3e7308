package tabard

import "context"

// Need declares something that a tool is given as a T: OAuth2 a *Token, KeyFrom an APIKey, Fields[S] a filled S.
// Only this package implements it.
type Need[T any] interface {
	// Validate checks the declaration without any call.
	Validate() error
	get(ctx context.Context, c *Client) (T, error)
}

// Tool returns fn without its credential: the function that an agent framework registers. On each call it gets what
// need declares, for the user in ctx, and only then calls fn; if that fails, it returns the error, such as
// *ConsentRequiredError, and fn is not called.
func Tool[T, In, Out any](c *Client, need Need[T], fn func(ctx context.Context, credential T, in In) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (Out, error) {
		credential, err := need.get(ctx, c)
		if err != nil {
			var none Out
			return none, err
		}
		return fn(ctx, credential, in)
	}
}
