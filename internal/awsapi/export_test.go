package awsapi

// What tests of package awsapi_test may reach.
var (
	ExceptionOf      = exceptionOf
	WriteError       = writeError
	WriteUnknown     = writeUnknownOperation
	ReadBody         = readBody
	CannotParse      = cannotParse
	BreaksConstraint = breaksConstraints
	ReasonOf         = func(err error) string {
		if e, ok := err.(*invalidInput); ok {
			return string(e.reason)
		}
		return ""
	}
)

// MaxBody is the bound of a body.
const MaxBody = maxBody

// Decode decodes body with a new decoder.
func Decode[Q any](body []byte) (*Q, error) { return newDecoder[Q]().decode(body) }

// Decoder returns the decode function of one decoder.
func Decoder[Q any]() func([]byte) (*Q, error) { return newDecoder[Q]().decode }

// CachedKeys counts the derived keys in v's cache.
func CachedKeys(v *Verifier) int {
	v.cache.mu.Lock()
	defer v.cache.mu.Unlock()
	return len(v.cache.entries)
}
