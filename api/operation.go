package api

// Plane says which of the three models an operation belongs to.
type Plane string

// The planes. All are served by one listener: no path of one collides with another's.
const (
	PlaneControl Plane = "control" // AWS's Bedrock AgentCore Control
	PlaneData    Plane = "data"    // AWS's Bedrock AgentCore
	PlaneTabard  Plane = "tabard"  // ours, under /tabard/
)

// Operation is one row of the models' operation tables.
type Operation struct {
	Name   string   // also the action's name
	Plane  Plane    //
	Method string   // HTTP method
	Path   string   // a net/http.ServeMux pattern without the method
	Status int      // of success
	Errors []string // the exceptions that the model names for it
}

// Operations returns every operation of the three models, whether or not this server implements it.
func Operations() []Operation {
	ops := identityControlOperations()
	ops = append(ops, identityDataOperations()...)
	return append(ops, tabardOperations()...)
}

// Find returns the operation with the given name. No two planes share a name.
func Find(name string) (Operation, bool) {
	for _, op := range Operations() {
		if op.Name == name {
			return op, true
		}
	}
	return Operation{}, false
}

// Exceptions that no model names: the usual codes of AWS's front door, which every SDK passes on as a generic API
// error, and two that name what has no modelled exception (docs/compatibility.md).
const (
	ExceptionInvalidSignature           = "InvalidSignatureException"
	ExceptionUnrecognizedClient         = "UnrecognizedClientException"
	ExceptionMissingAuthenticationToken = "MissingAuthenticationTokenException"
	ExceptionExpiredToken               = "ExpiredTokenException"
	ExceptionServiceUnavailable         = "ServiceUnavailableException"
	ExceptionRequestEntityTooLarge      = "RequestEntityTooLargeException"
	ExceptionUnknownOperation           = "UnknownOperationException"
)

// HeaderRefused says on a refusal what was refused where AWS's exceptions do not tell: RefusedCaller, who asked, by
// their signature, token or account, whatever it was that they asked for. Other refusals do not have it.
const (
	HeaderRefused = "X-Tabard-Refused"
	RefusedCaller = "caller"
)
