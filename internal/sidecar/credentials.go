package sidecar

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/tabard-id/tabard/internal/secret"
)

const (
	signingName     = "bedrock-agentcore" // what AWS's SDKs sign both planes with
	maxToken        = 64 << 10            // bytes of a workload's own token; Tabard reads fewer
	principalHeader = "X-Tabard-Principal"
)

// Credentials say to Tabard who the sidecar is.
type Credentials interface {
	// Sign adds to a request to Tabard, whose whole body is body, what authenticates it. It is called for each request.
	Sign(ctx context.Context, r *http.Request, body secret.Text) error
}

// TokenFile authenticates with the token in a file, which the platform of the workload writes and rotates (RFC 6750
// §2.1). The file is read for each request: it is small, and what was rotated or taken away takes effect at once.
// principal names the one that is meant where the token may stand for several; it may be empty.
func TokenFile(path, principal string) Credentials { return tokenFile{path, principal} }

type tokenFile struct{ path, principal string }

func (t tokenFile) Sign(_ context.Context, r *http.Request, _ secret.Text) error {
	f, err := os.Open(t.path)
	if err != nil {
		return err
	}
	token, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	defer clear(token)
	value := bytes.TrimSpace(token)
	switch {
	case len(value) == 0:
		return fmt.Errorf("the token file %s is empty", t.path)
	case len(token) > maxToken:
		return fmt.Errorf("the token file %s has more than %d bytes", t.path, maxToken)
	case bytes.ContainsFunc(value, func(c rune) bool { return c <= ' ' || c > '~' }):
		return fmt.Errorf("the token file %s holds no token: it has white space or other characters within", t.path)
	}
	r.Header.Set("Authorization", "Bearer "+string(value))
	if t.principal != "" {
		r.Header.Set(principalHeader, t.principal)
	}
	return nil
}

// AccessKey authenticates with AWS's Signature Version 4. from is asked for each request, and renews what has an end
// itself, as aws.CredentialsCache does.
func AccessKey(from aws.CredentialsProvider, region string) Credentials {
	return accessKey{from, region, v4.NewSigner()}
}

type accessKey struct {
	from   aws.CredentialsProvider
	region string
	signer *v4.Signer
}

func (k accessKey) Sign(ctx context.Context, r *http.Request, body secret.Text) error {
	key, err := k.from.Retrieve(ctx)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(body.Expose()))
	hash := hex.EncodeToString(sum[:])
	r.Header.Set("X-Amz-Content-Sha256", hash)
	return k.signer.SignHTTP(ctx, key, r, hash, signingName, k.region, time.Now())
}
