package awsapi_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/awsapi"
	"github.com/tabard-id/tabard/internal/fault"
	"github.com/tabard-id/tabard/internal/identity"
	"github.com/tabard-id/tabard/internal/secret"
)

const (
	sessionKey    = "TABSTSTESTSESSION001"
	sessionSecret = "session-secret-0123456789"
	sessionToken  = "ses1.token"
)

// sessionVerifier knows one key of the database and one session.
func sessionVerifier(end *error) *awsapi.Verifier {
	k := &keys{secret: testSecret}
	return awsapi.NewVerifier(awsapi.VerifierConfig{Region: "us-east-1", Now: testNow, Find: k.find,
		Session: func(_ context.Context, id string, token secret.Text) (identity.Credential, error) {
			switch {
			case id != sessionKey || token.Expose() != sessionToken:
				return identity.Credential{}, fault.New(fault.SignatureUnknown, "not one of this key")
			case *end != nil:
				return identity.Credential{}, *end
			}
			return identity.Credential{
				Caller: access.Caller{Name: "workload", AccessKey: id}, Version: -1,
				Secret: func(context.Context) (secret.Text, error) { return secret.New(sessionSecret), nil },
			}, nil
		}})
}

// sessionRequest is signed by the AWS SDK for Go, which signs the token's header too.
func sessionRequest(t *testing.T, id, key, token string, change func(*http.Request)) *http.Request {
	t.Helper()
	r := clientRequest(t, "POST", tokenPath, "{}")
	creds := aws.Credentials{AccessKeyID: id, SecretAccessKey: key, SessionToken: token}
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hashOf("{}"), "bedrock-agentcore", "us-east-1", testNow()); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	return received(t, r)
}

// J05: a session's key signs with its own token, which is signed itself, and with nothing else.
func TestJ05_SignaturesOfSessions(t *testing.T) {
	var end error
	v := sessionVerifier(&end)
	c, err := v.Verify(sessionRequest(t, sessionKey, sessionSecret, sessionToken, nil), []byte("{}"))
	if err != nil || c.Name != "workload" {
		t.Fatalf("got %+v, %v", c, err)
	}
	set := func(values ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["X-Amz-Security-Token"] = values }
	}
	for what, tt := range map[string]struct {
		r    *http.Request
		code fault.Code
	}{
		"another secret":             {sessionRequest(t, sessionKey, testSecret, sessionToken, nil), fault.SignatureInvalid},
		"another token":              {sessionRequest(t, sessionKey, sessionSecret, "ses1.other", nil), fault.SignatureUnknown},
		"no token":                   {sessionRequest(t, sessionKey, sessionSecret, "", nil), fault.SignatureUnknown},
		"the token of another key":   {sessionRequest(t, testKey, testSecret, sessionToken, nil), fault.SignatureUnknown},
		"a token that is not signed": {sessionRequest(t, sessionKey, sessionSecret, "", set(sessionToken)), fault.SignatureInvalid},
		"a key with a token beside":  {sessionRequest(t, testKey, testSecret, "", set(sessionToken)), fault.SignatureInvalid},
		"a token changed after":      {sessionRequest(t, sessionKey, sessionSecret, "ses1.other", set(sessionToken)), fault.SignatureInvalid},
		"two tokens":                 {sessionRequest(t, sessionKey, sessionSecret, sessionToken, set(sessionToken, sessionToken)), fault.SignatureInvalid},
		"an empty token":             {sessionRequest(t, testKey, testSecret, "", set("")), fault.SignatureInvalid},
	} {
		if c, err := v.Verify(tt.r, []byte("{}")); fault.CodeOf(err) != tt.code || c.Name != "" {
			t.Errorf("%s: got %q, %v; want %s", what, c.Name, err, tt.code)
		}
	}
	// Two tokens that are both signed: one would be verified, and who reads the other is deceived.
	r := clientRequest(t, "POST", tokenPath, "{}")
	r.Header["X-Amz-Security-Token"] = []string{sessionToken, "ses1.other"}
	creds := aws.Credentials{AccessKeyID: sessionKey, SecretAccessKey: sessionSecret}
	if err := v4.NewSigner().SignHTTP(t.Context(), creds, r, hashOf("{}"), "bedrock-agentcore", "us-east-1", testNow()); err != nil {
		t.Fatal(err)
	}
	if c, err := v.Verify(received(t, r), []byte("{}")); !errors.Is(err, fault.SignatureInvalid) || c.Name != "" {
		t.Errorf("two signed tokens: got %q, %v; want %s", c.Name, err, fault.SignatureInvalid)
	}
	end = fault.New(fault.CredentialsExpired, "the session ended")
	if _, err := v.Verify(sessionRequest(t, sessionKey, sessionSecret, sessionToken, nil), []byte("{}")); !errors.Is(err, fault.CredentialsExpired) {
		t.Errorf("after its end: got %v", err)
	}
}
