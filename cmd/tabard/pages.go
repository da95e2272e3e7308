package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

const completionTimeout = 2 * time.Second

// allPages collects a list: fetch returns one page and the token of the next, "" on the last.
func allPages[T any](fetch func(token string) ([]T, string, error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		page, next, err := fetch(token)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == "" || next == token {
			return all, nil
		}
		token = next
	}
}

// fromServer completes an argument with names that the server lists. A server that does not answer soon completes
// nothing.
func fromServer(f *finder, names func(ctx context.Context, c *client) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		c, err := f.dial(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := names(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		slices.Sort(found)
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// inFlag completes the value of a flag as f does a first argument, whatever arguments there are already.
func inFlag(f cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return f(cmd, nil, typed)
	}
}

// listing makes cmd list everything that fetch returns.
func listing[T any](cmd *cobra.Command, t terminal, f *finder, fetch func(context.Context, *client) ([]T, error), columns []column[T]) {
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := out.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		items, err := fetch(cmd.Context(), c)
		if err != nil {
			return err
		}
		return show(cmd, out, items, columns)
	}
}

// pointed returns the one item of an answer, or none where the server left it out.
func pointed[T any](p *T) []T {
	if p == nil {
		return nil
	}
	return []T{*p}
}

// pointee is what a member of an answer points to, or the zero value of one that is not there.
func pointee[T any](p *T) (value T) {
	if p != nil {
		value = *p
	}
	return value
}

// switching makes cmd change the thing that its argument names, and print it as it is then.
func switching[T any](cmd *cobra.Command, t terminal, f *finder, do func(context.Context, *client, string) (*T, error), columns []column[T]) {
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		changed, err := do(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return show(cmd, out, pointed(changed), columns)
	}
}

// answering makes cmd do one thing with its arguments and print what the server answers.
func answering[T any](cmd *cobra.Command, t terminal, f *finder, do func(context.Context, *client, []string) (T, error), columns []column[T]) {
	var out output
	out.addFlag(cmd, t)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := out.check(); err != nil {
			return err
		}
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		answer, err := do(cmd.Context(), c, args)
		if err != nil {
			return err
		}
		return show(cmd, out, []T{answer}, columns)
	}
}

// saying makes cmd do one thing to what its first argument names, and say so in a word.
func saying(cmd *cobra.Command, f *finder, done string, do func(context.Context, *client, []string) error) {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := f.dial(cmd.Context())
		if err != nil {
			return err
		}
		if err := do(cmd.Context(), c, args); err != nil {
			return err
		}
		return say(cmd, "%s %s", done, args[0])
	}
}

// namesOf is what fromServer completes with, from a list and what names one of its items.
func namesOf[T any](fetch func(context.Context, *client) ([]T, error), name func(T) cobra.Completion) func(context.Context, *client) ([]cobra.Completion, error) {
	return func(ctx context.Context, c *client) ([]cobra.Completion, error) {
		items, err := fetch(ctx, c)
		var names []cobra.Completion
		for _, item := range items {
			names = append(names, name(item))
		}
		return names, err
	}
}
