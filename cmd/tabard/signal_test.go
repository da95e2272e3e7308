package main

import (
	"errors"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The first signal lets requests in flight finish; the second does not wait for them.
func TestSecondSignalForces(t *testing.T) {
	p := start(t, t.TempDir(), nil)
	addr := strings.TrimPrefix(p.url, "http://")
	slow, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slow.Close() })
	// A request whose body never comes, signed in form. Continue says that the server reads it.
	now := time.Now().UTC().Format("20060102T150405Z")
	if _, err := slow.Write([]byte("POST /tabard/ListPrincipals HTTP/1.1\r\nHost: " + addr + "\r\nContent-Length: 2\r\nExpect: 100-continue\r\nX-Amz-Date: " + now +
		"\r\nAuthorization: AWS4-HMAC-SHA256 Credential=TABARDX/" + now[:8] + "/us-east-1/bedrock-agentcore/aws4_request, SignedHeaders=host;x-amz-date, Signature=" +
		strings.Repeat("0", 64) + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	if n, err := slow.Read(answer); err != nil || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 100") {
		t.Fatalf("the server said %q, %v; want 100 Continue", answer[:n], err)
	}
	signal := func() {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	if !eventually(func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}) {
		t.Fatal("after the first signal the server still takes connections")
	}
	if len(p.done) > 0 {
		t.Fatal("after the first signal the server did not wait for the request in flight")
	}
	signal()
	p.once.Do(func() {
		exit, ok := errors.AsType[*exec.ExitError](<-p.done)
		if !ok || exit.ExitCode() != exitFailed || !strings.Contains(p.stderr(), "by a second signal") {
			t.Errorf("after the second signal: %v\n%s\nwant exit %d", exit, p.stderr(), exitFailed)
		}
	})
}
