//go:build !linux

package main

import "syscall"

// endsWithParent is for Linux alone: elsewhere no kernel tells a child that its parent was killed.
func endsWithParent() *syscall.SysProcAttr { return nil }
