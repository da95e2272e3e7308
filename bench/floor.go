package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/tabard-id/tabard/api"
)

// serveFloor answers what everything is compared with. It does nothing that a server can leave out.
func serveFloor(ctx context.Context, role string, ready func(hello) error) error {
	handler := http.HandlerFunc(answerHello)
	if role == roleEcho {
		handler = answerEcho
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := ready(hello{Addr: l.Addr().String()}); err != nil {
		return err
	}
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answerHello is the floor that every ratio is to.
func answerHello(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("hello\n"))
}

// echoBody bounds the body that answerEcho reads, in bytes.
const echoBody = 64 << 10

// answerEcho is the second floor: it gets the very requests that the workload sends, headers and all, decodes their
// JSON and answers with JSON of the workload's shape. It checks nothing.
func answerEcho(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, echoBody))
	if err != nil {
		http.Error(w, "unreadable", http.StatusBadRequest)
		return
	}
	var q api.GetResourceOauth2TokenRequest
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	answer, err := json.Marshal(api.GetResourceOauth2TokenResponse{
		AccessToken: echoToken, GrantedScopes: q.Scopes, TokenType: "Bearer", ExpiresAt: api.At(time.Now()),
		ConnectionState: "ACTIVE", ConnectionID: "cn_00000000000000000000000000000000",
	})
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer)
}

// echoToken has the length of the calendar's access tokens.
const echoToken = "0000000000000000000000000000000000000000000"
