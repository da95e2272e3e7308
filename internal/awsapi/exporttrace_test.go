package awsapi

// TraceID is traceID.
var TraceID = traceID
