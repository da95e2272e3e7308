package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/tabard-id/tabard/internal/access"
	"github.com/tabard-id/tabard/internal/daemon"
	"github.com/tabard-id/tabard/internal/secret"
)

// serverConfig is what the measured server is told.
type serverConfig struct {
	DataDir    string `json:"dataDir"`
	DB         string `json:"db"`
	RootID     string `json:"rootId"`
	RootSecret string `json:"rootSecret"`
	NoAudit    bool   `json:"noAudit"`
}

// nothing is a trail that keeps nothing: what a server without one would cost.
type nothing struct{}

// Append implements access.Log.
func (nothing) Append(context.Context, []access.Record) error { return nil }

// serveTabard runs the server as `tabard serve --dev` does: with its request log, its metrics and everything else on.
func serveTabard(ctx context.Context, config []byte, ready func(hello) error) error {
	var c serverConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	daemon.TuneMemory()
	var log access.Log
	if c.NoAudit {
		log = nothing{}
	}
	s, err := daemon.New(ctx, daemon.Config{
		TestOnlyLog: log,
		Addr:        "127.0.0.1:0", AdminAddr: "127.0.0.1:0", DataDir: c.DataDir, DB: c.DB,
		Dev:             true, // the calendar, which gives the token once, speaks plain http on loopback
		RootAccessKeyID: c.RootID, RootSecretAccessKey: secret.New(c.RootSecret),
		Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), Version: "bench",
	})
	if err != nil {
		return fmt.Errorf("the server: %w", err)
	}
	defer s.Close()
	if err := ready(hello{Addr: strings.TrimPrefix(s.URL(), "http://"), Admin: s.AdminURL()}); err != nil {
		return err
	}
	return s.Run(ctx)
}
