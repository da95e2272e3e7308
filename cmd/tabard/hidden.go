package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tabard-id/tabard/internal/secret"
)

const maxSecret = 256 << 10 // bytes; the longest secret of the model, a user's token, is half of it

// hidden is a secret that a command needs. It comes from a file, from standard input, or from a terminal that does not
// show it; never from the command line, which every user of the machine can read.
type hidden struct {
	what     string // a noun phrase, for prompts and errors
	flag     string // names a file, - for standard input
	variable string // names a file too; may be empty
	file     string // value of the flag
	in       io.Reader
	env      func(string) string
}

// addFlag adds the flag, whose name ends in -file.
func (h *hidden) addFlag(cmd *cobra.Command, t terminal) {
	h.in, h.env = t.in, t.env
	or := ""
	if h.variable != "" {
		or = " (" + h.variable + ")"
	}
	cmd.Flags().StringVar(&h.file, h.flag, "", "`file` that has the "+h.what+", - for standard input"+or)
}

// given reports whether a file or a variable names the secret.
func (h *hidden) given() bool { return h.path() != "" }

func (h *hidden) path() string {
	if h.file == "" && h.variable != "" {
		return h.env(h.variable)
	}
	return h.file
}

// read returns the secret without white space around it. Where nothing names a file it asks at the terminal.
func (h *hidden) read(cmd *cobra.Command) (secret.Text, error) {
	value, err := h.raw(cmd)
	if err != nil {
		return secret.Text{}, err
	}
	if value.IsZero() {
		return secret.Text{}, usage("an end of line after it does not matter", "the %s is empty", h.what)
	}
	return value, nil
}

func (h *hidden) raw(cmd *cobra.Command) (secret.Text, error) {
	switch path := h.path(); path {
	case "":
		return h.ask(cmd)
	case "-":
		return h.from(h.in)
	default:
		f, err := os.Open(path)
		if err != nil {
			return secret.Text{}, fmt.Errorf("the file of the %s: %w", h.what, err)
		}
		value, err := h.from(f)
		return value, errors.Join(err, f.Close())
	}
}

func (h *hidden) from(r io.Reader) (secret.Text, error) {
	doc, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return secret.Text{}, fmt.Errorf("the %s: %w", h.what, err)
	}
	defer clear(doc)
	if len(doc) > maxSecret {
		return secret.Text{}, usage("is it the right file?", "the %s has more than %d bytes", h.what, maxSecret)
	}
	return secret.New(strings.TrimSpace(string(doc))), nil
}

// ask reads from a terminal without echo. An interrupt ends it with the echo back on.
func (h *hidden) ask(cmd *cobra.Command) (secret.Text, error) {
	f, ok := h.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return secret.Text{}, usage("--"+h.flag+" FILE, or --"+h.flag+" - for standard input", "%s needs the %s, and there is no terminal to ask at", cmd.CommandPath(), h.what)
	}
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return secret.Text{}, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: ", h.what)
	type typed struct {
		line []byte
		err  error
	}
	done := make(chan typed, 1)
	go func() { // it cannot be interrupted; the process ends soon after
		line, err := term.ReadPassword(int(f.Fd()))
		done <- typed{line, err}
	}()
	defer fmt.Fprintln(cmd.ErrOrStderr())
	select {
	case got := <-done:
		if got.err != nil {
			return secret.Text{}, fmt.Errorf("the %s: %w", h.what, got.err)
		}
		defer clear(got.line)
		return secret.New(strings.TrimSpace(string(got.line))), nil
	case <-cmd.Context().Done():
		return secret.Text{}, errors.Join(context.Cause(cmd.Context()), term.Restore(int(f.Fd()), before))
	}
}
