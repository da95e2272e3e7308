package main

import "syscall"

// endsWithParent has the kernel send SIGTERM to a child when the thread that started it is gone, however that came.
func endsWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
