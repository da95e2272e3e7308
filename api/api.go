// Package api has the wire types of every operation: AWS's control and data planes of AgentCore Identity, and
// Tabard's own. It has no logic beyond the constraints that the models declare.
//
// The *_gen.go files come from models/: two untouched copies of AWS's models, tabard.json in the same form, and
// extra.json, which adds what our answers carry beyond AWS's. Change a model, then run go generate.
//
// Conventions of the generated types. A structure-valued member is a pointer, nil where absent. A list or map is nil
// where absent and empty where the caller sent an empty one. Other members are plain values whose zero value means
// absent; where the model's own minimum excludes that zero value the field has the tag `api:"nonzero"`, and a decoder
// refuses a zero that was sent. Members bound to the path or query have the tag `uri` or `query`, and no JSON name.
package api

//go:generate go run ./gen
