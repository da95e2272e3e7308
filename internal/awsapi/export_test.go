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

// Bounds of a body, and of the signing keys of an account.
const (
	MaxBody        = maxBody
	MaxSigningKeys = maxSigningKeys
)

// Decode decodes body with a new decoder.
func Decode[Q any](body []byte) (*Q, error) { return newDecoder[Q]().decode(body) }

// Decoder returns the decode function of one decoder.
func Decoder[Q any]() func([]byte) (*Q, error) { return newDecoder[Q]().decode }

// CachedKeys counts the derived keys in v's cache, of all accounts.
func CachedKeys(v *Verifier) (n int) {
	v.cache.mu.Lock()
	defer v.cache.mu.Unlock()
	for _, keys := range v.cache.entries {
		n += len(keys)
	}
	return n
}

// WriteSTSError answers in the form of STS.
var WriteSTSError = writeSTSError
