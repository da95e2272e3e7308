package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/tabard-id/tabard/internal/sidecar"
)

// agentPatience is how long an agent may take to end after SIGTERM.
const agentPatience = 10 * time.Second

// runAgent runs the sidecar and the agent until one of them ends, and then ends the other. The agent goes last:
// requests that are under way finish first. No shell reads the command.
func runAgent(ctx context.Context, t terminal, beside *sidecar.Sidecar, command []string, vars []variable) error {
	runtime.LockOSThread() // the agent ends with the thread that started it, which must not be one that Go no longer needs
	defer runtime.UnlockOSThread()
	agent := exec.Command(command[0], command[1:]...) // not with ctx, which would kill it while requests are under way
	agent.Stdin, agent.Stdout, agent.Stderr, agent.WaitDelay = t.in, t.out, t.err, agentPatience
	agent.Env, agent.SysProcAttr = t.environ(), endsWithParent()
	for _, v := range vars {
		agent.Env = append(agent.Env, v.name+"="+v.value) // the last one counts
	}
	if err := agent.Start(); err != nil {
		return &failure{exit: exitUsage, err: err, msg: "start the agent: " + oneLine(err.Error()), hints: []string{"no shell reads the command after --: give sh -c '...' if it needs one"}}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	agentEnded, sidecarEnded := make(chan error, 1), make(chan error, 1)
	go func() { agentEnded <- agent.Wait() }()
	go func() { sidecarEnded <- beside.Run(ctx) }()
	select {
	case err := <-agentEnded:
		stop()
		return errors.Join(agentFailure(err), <-sidecarEnded)
	case err := <-sidecarEnded:
		_ = agent.Process.Signal(syscall.SIGTERM) // it may just have ended
		select {
		case agentErr := <-agentEnded:
			if exit, ok := errors.AsType[*exec.ExitError](agentErr); ok && exit.Exited() {
				return errors.Join(agentFailure(agentErr), err)
			}
		case <-time.After(agentPatience):
			_ = agent.Process.Kill()
			<-agentEnded
		}
		return err
	}
}

// agentFailure passes the agent's exit code on: 128 and the signal's number where a signal ended it, as shells say.
func agentFailure(err error) error {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return &failure{exit: 128 + int(status.Signal()), err: err, msg: fmt.Sprintf("the agent was ended by a signal: %s", status.Signal())}
	}
	return &failure{exit: exit.ExitCode(), err: err, msg: fmt.Sprintf("the agent ended with exit code %d", exit.ExitCode())}
}
