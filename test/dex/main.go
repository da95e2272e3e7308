// Command dex is Dex, an OpenID Connect provider, for a test: its own server on a random port of 127.0.0.1, with the
// clients and the users that one JSON object on standard input names. It prints {"issuer": URL} in one line and runs
// until standard input ends. It is a module of its own, so that nothing of Dex gets into Tabard's.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/server/signer"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
)

// tokenLife is how long ID tokens and access tokens are valid.
const tokenLife = time.Hour

type config struct {
	Clients []struct {
		ID           string   `json:"id"`
		Secret       string   `json:"secret"`
		RedirectURIs []string `json:"redirectUris"`
	} `json:"clients"`
	Users []struct {
		ID       string `json:"id"`
		Name     string `json:"name"`
		Email    string `json:"email"`
		Password string `json:"password"`
	} `json:"users"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dex:", err)
		os.Exit(1)
	}
}

func run() error {
	in := json.NewDecoder(os.Stdin)
	var c config
	if err := in.Decode(&c); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	issuer := "http://" + listener.Addr().String() + "/dex"
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	handler, err := c.dex(ctx, issuer)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // whoever started us closes it, or is gone
		_ = srv.Close()
	}()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"issuer": issuer}); err != nil {
		return err
	}
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// dex makes the server: logins by Dex's own page for passwords, no page that asks for consent.
func (c config) dex(ctx context.Context, issuer string) (http.Handler, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var clients []storage.Client
	for _, x := range c.Clients {
		clients = append(clients, storage.Client{ID: x.ID, Secret: x.Secret, RedirectURIs: x.RedirectURIs, Name: x.ID})
	}
	var passwords []storage.Password
	for _, u := range c.Users {
		hash, err := bcrypt.GenerateFromPassword([]byte(u.Password), bcrypt.DefaultCost)
		if err != nil {
			return nil, err
		}
		passwords = append(passwords, storage.Password{UserID: u.ID, Username: u.Name, Email: u.Email, Hash: hash})
	}
	kept := storage.WithStaticClients(memory.New(log), clients)
	kept = storage.WithStaticPasswords(kept, passwords, log)
	kept = storage.WithStaticConnectors(kept, []storage.Connector{{ID: server.LocalConnector, Type: server.LocalConnector, Name: "Email"}})
	keys := signer.LocalConfig{KeysRotationPeriod: "6h"}
	sign, err := keys.Open(ctx, kept, tokenLife, time.Now, log)
	if err != nil {
		return nil, err
	}
	return server.NewServer(ctx, server.Config{
		Issuer: issuer, Storage: kept, Signer: sign, SkipApprovalScreen: true, IDTokensValidFor: tokenLife, Now: time.Now, Logger: log,
	})
}
